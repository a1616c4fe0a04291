"""Memory over the size of the batch, as SVG."""

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "neuromm", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402  (after the back end is chosen)

from loss_bench.forms import NAMES  # noqa: E402

WIDTH = 256
# Colour and width of each line; GradCache's lies under that of eager, of one memory.
STYLES = {
    "gradcache": ("#ecc94b", 5.0),
    "eager": ("#c05621", 1.2),
    "compile": ("#97266d", 1.2),
    "chunked": ("#718096", 1.2),
    "neuromm": ("#2b6cb0", 2.2),
}


def memory(rows, path):
    """Extra memory of symmetric InfoNCE against N, a line for each form."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    for form, (colour, width) in STYLES.items():
        points = sorted(
            (row["n_samples"], row["extra_bytes"] / 1e6)
            for row in rows
            if (row["form"], row["loss"], row["width"]) == (form, "clip", WIDTH)
            and row["threads"] == 1
            and "failed" not in row
        )
        if points:
            n, mb = zip(*points, strict=True)
            axes.plot(n, mb, "o-", ms=4, lw=width, color=colour, label=NAMES[form])
    _finish(figure, axes, path)


def _finish(figure, axes, path):
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [2**power for power in range(9, 17)]
    axes.set_xticks(ticks, [f"{tick:,}".replace(",", " ") for tick in ticks])
    marks = {10: "10 MB", 100: "100 MB", 1000: "1 GB", 10_000: "10 GB"}
    axes.set_yticks(list(marks), list(marks.values()))
    axes.minorticks_off()
    axes.grid(axis="y", lw=0.5, color="#e2e8f0")
    axes.set(xlabel="pairs in the batch, N", ylabel="memory beyond the inputs")
    axes.legend(frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # matplotlib ends some lines in a space, which hooks of Git object to.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
