"""Figures of the simulations, as SVG."""

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "neuromm", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402  (after the back end is chosen)
import numpy as np  # noqa: E402

BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#718096"


def new_axes(width=4.6, height=3.0):
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure, path):
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # matplotlib ends some lines in a space, which hooks of Git object to.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def rates(results, path):
    """Share of targets with p <= 0.05 and that are called, by what they are."""
    figure, axes = new_axes(5.6, 3.2)
    names = list(results)
    place = np.arange(len(names))
    for shift, key, colour, label in (
        (0.15, "p", GREY, "p ≤ 0.05, uncorrected"),
        (-0.15, "site", BLUE, "called a site (q ≤ 0.05)"),
    ):
        mean = [100 * results[name][key][0] for name in names]
        error = [200 * results[name][key][1] for name in names]
        axes.errorbar(
            mean, place + shift, xerr=error, fmt="o", ms=4, color=colour, label=label
        )
    axes.axvline(5, color=ORANGE, lw=1, ls="--")
    axes.set(yticks=place, yticklabels=names, xlabel="% of targets that are no site")
    axes.set_xlim(-0.3, 12)
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="center right")
    save(figure, path)


def power(results, path):
    """Share of planted sites found, against r, a line for each number of events."""
    figure, axes = new_axes()
    numbers = sorted({n for _, n in results})
    for n, colour in zip(numbers, (GREY, BLUE, ORANGE), strict=False):
        r = sorted(one for one, events in results if events == n)
        found = [100 * results[one, n] for one in r]
        axes.plot(r, found, "o-", ms=4, color=colour, label=f"{n} events")
    axes.axhline(80, color=GREY, lw=0.8, ls="--")
    axes.set(xlabel="true r", ylabel="% of planted sites found", ylim=(0, 103))
    axes.legend(frameon=False, loc="lower right")
    save(figure, path)


def null_p(samples, path):
    """Quantiles of p of equal models against those of a uniform distribution."""
    figure, axes = new_axes(3.6, 3.4)
    for (name, p), colour in zip(samples.items(), (BLUE, ORANGE, GREY), strict=False):
        grid = np.linspace(0.005, 0.995, 100)
        axes.plot(grid, np.quantile(p, grid), color=colour, label=name)
    axes.plot([0, 1], [0, 1], color="k", lw=0.7, ls=":")
    axes.set(xlabel="expected p", ylabel="p of two equal models", aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, path)


def coverage(results, path):
    """Share of 95 % intervals that hold the true gain."""
    figure, axes = new_axes(5.0, 2.2)
    names = list(results)
    mean = [100 * results[name][0] for name in names]
    error = [200 * results[name][1] for name in names]
    axes.axvspan(93, 97, color=BLUE, alpha=0.12, lw=0)
    axes.axvline(95, color=BLUE, lw=0.8)
    axes.errorbar(mean, np.arange(len(names)), xerr=error, fmt="o", ms=4, color="k")
    axes.set(
        yticks=np.arange(len(names)),
        yticklabels=names,
        xlabel="% of intervals that hold the true gain",
        xlim=(85, 100),
        ylim=(len(names) - 0.5, -0.5),
    )
    save(figure, path)


def bins(p, path):
    """Distribution of p of two equal models, bins or events resampled."""
    figure, axes = new_axes()
    edges = np.linspace(0, 1, 21)
    for number, (label, colour) in enumerate(
        (("time bins", ORANGE), ("blocks of events", BLUE))
    ):
        share = 100 * (p[:, number] <= 0.05).mean()
        axes.hist(
            p[:, number],
            edges,
            weights=np.full(len(p), 100 / len(p)),
            histtype="step",
            lw=1.6,
            color=colour,
            label=f"{label} resampled: p ≤ 0.05 in {share:.0f} %",
        )
    axes.axhline(5, color=GREY, lw=0.8, ls="--")
    axes.set(xlabel="p of two equal models", ylabel="% of contacts")
    axes.legend(frameon=False)
    save(figure, path)
