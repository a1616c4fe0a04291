"""What was measured, as text for the terminal and as a table of the documentation."""

import json
from pathlib import Path

from loss_bench.forms import NAMES, TITLES

BEGIN = "<!-- table made by: python bench/losses.py --write-docs -->"
END = "<!-- end of the table -->"

# What was asked for: errors of every case; of some, speed over eager and memory.
_LOSS_ERROR, _GRADIENT_ERROR = 1e-5, 5e-5
_RATIO = {
    ("clip", 8192, 256): 1.0,
    ("levels", 512, 512): 1.3,
    ("gram", 2048, 256): 10.0,
}
_MOST_BYTES = {
    ("clip", 8192, 256): 64e6 + 4 * 8192 * 256 * 4,
    ("clip", 65536, 256): 1e9,
}
_SHARE = {("gram", 2048, 256): 1 / 50}


def key(row):
    return *size_of(row), row["threads"], row["form"]


def size_of(row):
    return row["loss"], row["n_samples"], row["width"]


def merged(old, new):
    """All rows; a new one takes the place of an old one of the same key."""
    return list({key(row): row for row in [*old, *new]}.values())


def read_rows(path):
    path = Path(path)
    return json.loads(path.read_text())["rows"] if path.exists() else []


def row_text(row):
    head = f"{NAMES[row['form']]:24}"
    if "failed" in row:
        return f"{head} failed: {row['failed']}"
    text = f"{row['wall_s']:10.4f}{row['cpu_s']:10.4f}{row['extra_bytes'] / 1e6:10.0f}"
    if "loss_error" in row:
        text += f"{row['loss_error']:10.0e}{row['gradient_error']:10.0e}"
    return head + text


def head_text():
    heads = ("wall s", "CPU s", "extra MB", "loss", "gradients")
    return f"{'':24}" + "".join(f"{head:>10}" for head in heads)


def case_title(row):
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return (
        f"{TITLES[row['loss']]}, N = {row['n_samples']}, d = {row['width']}, {threads}"
    )


def goals(rows):
    """What is asked of a case: pairs of words and whether it is reached."""
    by_form = {row["form"]: row for row in rows if "failed" not in row}
    ours, eager = by_form.get("neuromm"), by_form.get("eager")
    if ours is None:
        return [("our form runs", False)]
    found, size = [], size_of(ours)
    if "loss_error" in ours:
        exact = ours["loss_error"] < _LOSS_ERROR
        exact = exact and ours["gradient_error"] < _GRADIENT_ERROR
        found.append(("loss within 1e-5, gradients within 5e-5", exact))
    if size in _MOST_BYTES:
        most = _MOST_BYTES[size]
        words = f"{ours['extra_bytes'] / 1e6:.0f} MB of at most {most / 1e6:.0f}"
        found.append((words, ours["extra_bytes"] <= most))
    if eager and size in _RATIO:
        ratio = eager["wall_s"] / ours["wall_s"]
        words = f"{ratio:.1f} times as fast as eager, at least {_RATIO[size]:g}"
        found.append((words, ratio >= _RATIO[size]))
    if eager and size in _SHARE:
        share = ours["extra_bytes"] / eager["extra_bytes"]
        words = f"{share:.3f} of the memory of eager, at most {_SHARE[size]:g}"
        found.append((words, share <= _SHARE[size]))
    return found


def goals_text(rows):
    return "\n".join(
        f"  {'reached' if good else 'NOT REACHED'}: {words}"
        for words, good in goals(rows)
    )


def docs_table(rows, machine):
    """Markdown: one table, a row for each case and form, both numbers of threads."""
    heads = [
        "Case", "Form", "1 thread, s", "2 threads, s", "Extra MB", "Error of the loss",
        "Of gradients",
    ]  # fmt: skip
    lines = [heads, ["---"] * len(heads)]
    by_case = {}
    for row in rows:
        if row["timed"]:
            case = by_case.setdefault(size_of(row), {})
            case.setdefault(row["form"], {})[row["threads"]] = row
    for (loss, n_samples, width), forms in by_case.items():
        title = f"{TITLES[loss]}, N = {n_samples}, d = {width}"
        for form, runs in forms.items():
            lines.append([title, NAMES[form], *_cells(runs)])
            title = ""
    table = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join(["", machine, "", *table, ""])


def _cells(runs):
    failed = [row["failed"] for row in runs.values() if "failed" in row]
    if failed:
        return ["failed", "failed", "", "", ""]

    def worst(name, how, share=1.0):
        values = [row[name] / share for row in runs.values() if name in row]
        return format(max(values), how) if values else ""

    def seconds(threads):
        return f"{runs[threads]['wall_s']:.3g}" if threads in runs else ""

    return [
        seconds(1),
        seconds(2),
        worst("extra_bytes", ".0f", 1e6),
        worst("loss_error", ".0e"),
        worst("gradient_error", ".0e"),
    ]


def write_docs(page, rows, machine):
    """Replace what stands between the markers of ``page``."""
    text = Path(page).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"losses.py: error: {page} has no lines {BEGIN!r} and {END!r}")
    table = docs_table(rows, machine)
    Path(page).write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
