"""What was measured, as text for the terminal and as a table of the documentation."""

import json
from pathlib import Path

from ridge_bench.cuda import cuda_text
from ridge_bench.jobs import Job

BEGIN = "<!-- table made by: python bench/ridge.py --write-docs -->"
END = "<!-- end of the table -->"

# Of the issue that asked for this engine: least speed-up over himalaya's better
# estimator, largest share of its memory.
_NEEDED = {
    (3000, 1000, 20_000, 5): (8.0, 1 / 3),
    (3000, 5000, 20_000, 5): (2.5, None),
    (3000, 5000, 20_000, 12): (2.0, None),
}
_MOST_FOR_MANY_ALPHAS = 1.6

_NAN = float("nan")

_BUSY = 1.15
_SLACK_S = 0.1


def job_of(case):
    return Job(**case["job"])


def better_himalaya(case, by="wall_s"):
    """Estimator of himalaya that took less time, and what it took; None without."""
    rows = [row for row in case["peers"] if row["estimator"].startswith("himalaya")]
    timed = [row for row in rows if row[by] is not None]
    return min(timed, key=lambda row: row[by], default=None)


def cpu_ratio(case):
    """Speed-up over himalaya in CPU seconds, which a busy machine changes less."""
    peer = better_himalaya(case, by="cpu_s")
    return peer["cpu_s"] / case["ours"]["cpu_s"] if peer else _NAN


def was_busy(row, threads):
    """Whether other work took the processor: one thread, and far more wall time."""
    measured = threads == 1 and row["cpu_s"] is not None and len(row["n_targets"]) == 1
    return measured and row["wall_s"] > _BUSY * row["cpu_s"] + _SLACK_S


def shares(case, clock="wall"):
    """Share of the sgemm rate: of all counted products, and past the set-up."""
    ours = case["ours"]
    rate, seconds = max(ours["sgemm_per_s"].values()), ours[f"{clock}_s"]
    rest = seconds - ours[f"set_up_{clock}_s"]
    whole = ours["products"] / seconds / rate
    return whole, ours["target_products"] / rest / rate if rest > 0 else float("nan")


def case_text(case):
    """A case in lines."""
    job, ours = job_of(case), case["ours"]
    lines = [
        f"{job.name}, 20 alphas, float32, {case['threads']} thread(s), "
        f"{case['device']}, {ours['solver_form']}",
        f"{'':34}"
        + "".join(
            f"{head:>10}"
            for head in ("wall s", "CPU s", "MB", "ratio", "same a", "dscore", "dcoef")
        ),
    ]
    for row in [ours, *case["peers"]]:
        peak = row["peak_bytes"]
        line = f"{row['estimator']:34}{row['wall_s']:10.2f}"
        line += f"{row['cpu_s']:10.2f}" if row["cpu_s"] else f"{'':10}"
        line += f"{peak / 1e6:10.0f}" if peak is not None else f"{'':10}"
        line += f"{row['wall_s'] / ours['wall_s']:10.1f}"
        if "same_alphas" in row:
            line += f"{row['same_alphas']:10.2%}{row['score_difference']:10.0e}"
            line += f"{row['coef_difference']:10.0e}"
        busy = "  machine was busy" if was_busy(row, case["threads"]) else ""
        lines.append(line + note(row, job) + busy)
    whole, rest = shares(case)
    whole_cpu, rest_cpu = shares(case, "cpu")
    rates = ", ".join(
        f"{name} {rate / 1e9:.0f}" for name, rate in ours["sgemm_per_s"].items()
    )
    lines += [
        f"  planned {ours['planned_s']:.2f} s, {ours['planned_bytes'] / 1e6:.0f} MB "
        f"({ours['planned_form']}); set-up {ours['set_up_wall_s']:.2f} s",
        f"  sgemm {rates} GFLOP/s; counted {ours['products'] / 1e9:.0f} GFLOP: "
        f"{whole:.0%} of it, products with targets past the set-up {rest:.0%}"
        f" (by CPU seconds {whole_cpu:.0%}, {rest_cpu:.0%})",
        f"  {ours['many_alphas']} alphas: {ours['many_alphas_s']:.2f} s, "
        f"{many_ratio(ours):.2f} times 20 ({ours['many_alphas_form']})",
    ]
    return "\n".join(lines + ["  " + line for line in goals(case)])


def many_ratio(ours):
    return ours["many_alphas_s"] / ours["wall_s"]


def note(row, job):
    """How a number that was not measured as it stands came about."""
    if row.get("by_model"):
        return "  by the count of its operations at the full sgemm rate"
    if row["n_targets"] != [job.n_targets]:
        sizes = " and ".join(str(size) for size in row["n_targets"])
        return f"  scaled from {sizes} targets"
    return ""


def goals(case):
    """What the issue asks for, beside what was reached."""
    peer, ours, job = better_himalaya(case), case["ours"], job_of(case)
    needed, memory = _NEEDED.get((*job.shape, job.n_folds), (1.0, None))
    lines = []
    if peer:
        ratio = peer["wall_s"] / ours["wall_s"]
        lines.append(
            f"{ratio:.1f} times himalaya's better one, {cpu_ratio(case):.1f} in CPU "
            f"seconds (needed {needed:g})"
        )
    if peer and memory and peer["peak_bytes"] and ours["peak_bytes"]:
        share = ours["peak_bytes"] / peer["peak_bytes"]
        lines.append(f"{share:.2f} of its memory (needed {memory:.2f} or less)")
    if many_ratio(ours) > _MOST_FOR_MANY_ALPHAS:
        lines.append(f"200 alphas cost more than {_MOST_FOR_MANY_ALPHAS} times 20")
    return lines


def docs_table(cases):
    """Markdown: tables of the CPU, one pair a machine, and text of a GPU."""
    parts = []
    by_machine = {}
    for case in cases:
        by_machine.setdefault(_machine_text(case["machine"]), []).append(case)
    for machine, chosen in by_machine.items():
        on_cpu = [case for case in chosen if case["device"] == "cpu"]
        if on_cpu:
            parts += _machine_table(machine, on_cpu)
        for case in chosen:
            if case["device"] == "cuda":
                parts += ["", machine, "", "```text", cuda_text(case), "```", ""]
    return "\n".join(parts)


def _machine_table(machine, cases):
    cases = sorted(cases, key=lambda one: (one["threads"], _order(one)))
    times = [
        "n x p x targets", "folds", "threads", "neuromm, s", "himalaya, s", "ratio",
        "CPU ratio", "scikit-learn, ratio", "neuromm, MB", "himalaya, MB",
        "solver form",
    ]  # fmt: skip
    facts = [
        "n x p x targets", "folds", "threads", "CPU s", "planned s", "planned MB",
        "200 alphas", "GFLOP", "of sgemm", "past set-up", "same alphas", "R2",
        "weights",
    ]  # fmt: skip
    notes = []
    rows = [_times_row(case, notes) for case in cases]
    return [
        *("", machine, ""),
        *_markdown(times, rows),
        *("", *notes, ""),
        *_markdown(facts, [_facts_row(case) for case in cases]),
        "",
    ]


def _markdown(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _order(case):
    job = job_of(case)
    return job.n_samples < job.n_features, *job.shape, job.n_folds


def _first_cells(case):
    job = job_of(case)
    sizes = f"{job.n_samples} x {job.n_features} x {job.n_targets}"
    return [sizes, str(job.n_folds), str(case["threads"])]


def _times_row(case, notes):
    ours, job, peer = case["ours"], job_of(case), better_himalaya(case)
    loops = [row for row in case["peers"] if row["estimator"].startswith("scikit")]
    peak, theirs = ours["peak_bytes"], peer and peer["peak_bytes"]
    return [
        *_first_cells(case),
        f"{ours['wall_s']:.2f}",
        f"{peer['wall_s']:.1f}{_mark(peer, job, notes)} ({_short(peer)})"
        if peer
        else "",
        _wall_ratio(case),
        _known(cpu_ratio(case), ".1f"),
        f"{loops[0]['wall_s'] / ours['wall_s']:.0f}" if loops else "",
        f"{peak / 1e6:.0f}" if peak else "",
        f"{theirs / 1e6:.0f}" if theirs else "",
        ours["solver_form"],
    ]


def _wall_ratio(case):
    """Ratio of wall times, unless other work ran beside one of them."""
    ours, peer = case["ours"], better_himalaya(case)
    if peer is None:
        return ""
    if was_busy(ours, case["threads"]) or was_busy(peer, case["threads"]):
        return "machine was busy"
    return f"**{peer['wall_s'] / ours['wall_s']:.1f}**"


def _mark(peer, job, notes):
    """Superscript of a note, which is added to ``notes`` if it is new."""
    text = note(peer, job).strip()
    if not text:
        return ""
    number = next((i for i, old in enumerate(notes) if old.endswith(text)), len(notes))
    if number == len(notes):
        notes.append(f"<sup>{number + 1}</sup> {text}")
    return f"<sup>{number + 1}</sup>"


def _facts_row(case):
    ours = case["ours"]
    # CPU seconds of one thread are its wall time on a machine that is not busy.
    whole, rest = shares(case, "cpu" if case["threads"] == 1 else "wall")
    compared = [
        row
        for row in case["peers"]
        if "same_alphas" in row and not row["estimator"].startswith("neuromm")
    ]

    def worst(name):
        return max((row[name] for row in compared), default=_NAN)

    return [
        *_first_cells(case),
        f"{ours['cpu_s']:.2f}",
        f"{ours['planned_s']:.2f}",
        f"{ours['planned_bytes'] / 1e6:.0f}",
        f"{many_ratio(ours):.2f}",
        f"{ours['products'] / 1e9:.0f}",
        f"{whole:.0%}",
        f"{rest:.0%}",
        _known(min((row["same_alphas"] for row in compared), default=_NAN), ".2%"),
        _known(worst("score_difference"), ".0e"),
        _known(worst("coef_difference"), ".0e"),
    ]


def _known(value, how):
    """A number in this format, nothing for nan."""
    return "" if value != value else format(value, how)


def _short(row):
    return row["estimator"].removeprefix("himalaya ")


def _machine_text(machine):
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    cpu = f"{machine['cpu']}, {machine['cores']} cores"
    return f"{gpu}{cpu}; {versions}; commit {machine['commit']}."


def write_docs(page, cases):
    """Replace what stands between the markers of ``page``."""
    text = Path(page).read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"ridge.py: error: {page} has no lines {BEGIN!r} and {END!r}")
    Path(page).write_text(f"{before}{BEGIN}\n{docs_table(cases)}\n{END}{after}")


def read_cases(path):
    """Cases of an earlier run."""
    path = Path(path)
    return json.loads(path.read_text())["cases"] if path.exists() else []


def merged(old, new):
    """All cases; a new one takes the place of an old one of the same key."""
    by_key = {_key(case): case for case in [*old, *new]}
    return list(by_key.values())


def _key(case):
    job = job_of(case)
    return (*job.shape, job.n_folds, case.get("threads"), case["device"])


__all__ = [
    "case_text",
    "docs_table",
    "merged",
    "read_cases",
    "write_docs",
]
