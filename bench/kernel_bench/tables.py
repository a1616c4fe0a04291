"""What was measured, as text for the terminal and as a table of the documentation."""

import json
from pathlib import Path

BEGIN = "<!-- table made by: python bench/kernels.py --write-docs -->"
END = "<!-- end of the table -->"


def key(row):
    return row["kernel"], row["title"], row["library"], row["gpu"]


def merged(old, new):
    """All rows; a new one takes the place of an old one of the same key."""
    return list({key(row): row for row in [*old, *new]}.values())


def read_rows(path):
    path = Path(path)
    return json.loads(path.read_text())["rows"] if path.exists() else []


def head_text():
    heads = ("kernel ms", "plain ms", "ratio", "GB/s", "share", "error", "of plain")
    return f"{'':20}" + "".join(f"{head:>11}" for head in heads)


def row_text(row):
    """A row in two lines: what, and the numbers."""
    title = f"{row['kernel']}: {row['title']}"
    if "failed" in row:
        return f"{title}\n{'':20} {row['failed']}"
    numbers = [
        f"{row['kernel_ms']:.4g}",
        f"{row['plain_ms']:.4g}",
        f"{row['plain_ms'] / row['kernel_ms']:.1f}",
        f"{row['bytes_per_s'] / 1e9:.0f}" if "bytes" in row else "",
        _share(row),
        f"{row['kernel_error']:.0e}",
        f"{row['plain_error']:.0e}",
    ]
    spread = f"{row['kernel_low_ms']:.4g} to {row['kernel_high_ms']:.4g}"
    right = (
        "" if row["right"] else "\n  WRONG: more than twice the error of plain arrays"
    )
    return f"{title}\n{spread:>20}" + "".join(f"{one:>11}" for one in numbers) + right


def machine_text(facts):
    """GPU and versions in a sentence."""
    versions = ", ".join(
        f"{label} {facts[name]}"
        for label, name in (
            ("CUDA driver", "driver"), ("NVRTC", "nvrtc"), ("CuPy", "cupy"),
            ("torch", "torch"), ("Python", "python"),
        )
        if name in facts
    )  # fmt: skip
    return (
        f"{facts['gpu']}, {facts['memory_bytes'] / 2**30:.0f} GiB; copies "
        f"{facts['copy_bytes_per_s'] / 1e9:.0f} GB/s; {versions}; commit "
        f"{facts['commit']}."
    )


def docs_table(rows):
    """Markdown: a table for each GPU and library, under a sentence on both."""
    groups = {}
    for row in rows:
        groups.setdefault((row["gpu"], row["library"]), []).append(row)
    heads = [
        "Kernel", "Size", "Kernel, ms", "Plain, ms", "Ratio", "Share of the copy rate",
        "Error", "Of plain",
    ]  # fmt: skip
    lines = []
    for (_, library), of_group in groups.items():
        lines += ["", f"{of_group[-1]['machine']} Arrays of {library}.", ""]
        table = [heads, ["---"] * len(heads)]
        for row in of_group:
            name = f"`{row['kernel']}`"
            cells = [row["failed"], *[""] * 5] if "failed" in row else _cells(row)
            table.append([name, row["title"], *cells])
        lines += ["| " + " | ".join(line) + " |" for line in table]
    return "\n".join([*lines, ""])


def _cells(row):
    return [
        f"{row['kernel_ms']:.3g}",
        f"{row['plain_ms']:.3g}",
        f"{row['plain_ms'] / row['kernel_ms']:.1f}",
        _share(row),
        f"{row['kernel_error']:.0e}",
        f"{row['plain_error']:.0e}",
    ]


def _share(row):
    return f"{row['share']:.0%}" if "share" in row else ""


def write_docs(page, rows):
    """Replace what stands between the markers of ``page``."""
    text = Path(page).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(
            f"kernels.py: error: {page} has no lines {BEGIN!r} and {END!r}"
        )
    table = docs_table(rows)
    Path(page).write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
