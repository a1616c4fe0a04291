"""Tables of ``docs/gene_dml.md``, from the results of the script."""

import numpy as np

from . import published

FIRST, LAST = "<!-- tables made by", "<!-- end of the tables -->"
NAMES = {
    "ridge": "ridge regression of the patch",
    "ridge around": "ridge regression of the patch and the mean tile around it",
    "target": "target",
    "neighbor": "+ neighbour",
    "global": "+ global",
    "contrastive": "+ contrastive losses",
}
RIDGES = ("ridge", "ridge around")
PROBED = {
    "ridge": "ridge probe",
    "hest": "probe of HEST-Benchmark",
    "genedml": "Gene-DML",
}


def write(results, page):
    text = page.read_text()
    start = text.index("\n", text.index(FIRST)) + 1
    end = text.index(LAST)
    page.write_text(text[:start] + "\n" + made(results) + "\n" + text[end:])


def made(results):
    jobs, machine = results["jobs"], results["machine"]
    parts = [
        f"Xeon, {machine['threads']} thread(s); Python {machine['python']}, neuromm "
        f"{machine['neuromm']}, torch {machine['torch']}.\n"
    ]
    planted = of_seeds(jobs, "planted")
    if planted:
        parts += [scales(planted)]
    shuffled = of_seeds(jobs, "shuffled")
    if shuffled:
        parts += [controls(shuffled)]
    if "step" in jobs:
        one = jobs["step"]
        parts += [
            f"A training step of 512 spots, 250 genes and {one['n_features']} features "
            f"takes {one['seconds']} s, **{one['ratio']} times** one of the prediction "
            f"alone ({one['plain']} s).\n"
        ]
    if "section" in jobs:
        one = jobs["section"]
        parts += [
            f"{one['n_spots']} spots with 197 tokens of 1024 features each, at the "
            f"published size: **{one['seconds']} s** with {one['threads']} thread(s).\n"
        ]
    if "her2st" in jobs:
        parts += [section_a1(jobs["her2st"])]
    parts += [published.table(jobs.get("published", {}).get("data_sets", {}))]
    return "\n".join(parts)


def section_a1(one):
    rows = []
    for backbone, found in one["backbones"].items():
        stand_in = " (a stand-in)" if found["is_stand_in"] else ""
        for name, words in PROBED.items():
            values = [
                np.array(found[kind][name], dtype=float)
                for kind in ("blocks", "random")
            ]
            cells = " | ".join(f"{v.mean():.3f} ± {error(v):.3f}" for v in values)
            rows.append(f"| {backbone}{stand_in} | {words} | {cells} |")
    return (
        f"**Section A1 of HER2ST**, {one['n_spots']} spots, {one['n_genes']} genes "
        "chosen on the training spots of each fold; PCC(A), mean and standard error of "
        "four folds:\n\n| Features | Model | quarters of the section | random spots (a "
        "leak) |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def of_seeds(jobs, name):
    return {
        job.partition(":")[2]: jobs[job] for job in jobs if job.startswith(f"{name}:")
    }


def scales(seeds):
    rows = [
        "| Model | PCC(A) | gain over the row above | expression found among 10 |",
        "| --- | --- | --- | --- |",
    ]
    before = None
    for name, words in NAMES.items():
        values = np.array([one[name]["pcc"] for one in seeds.values()])
        gain = found = ""
        if before is not None:
            steps = values - before
            gain = f"{steps.mean():+.3f} ± {error(steps):.3f}"
        if name not in RIDGES:
            hits = np.array([one[name]["retrieval"] for one in seeds.values()])
            found = f"{hits.mean():.2f}"
            before = values
        rows.append(f"| {words} | {values.mean():.3f} | {gain} | {found} |")
    return (
        f"**Planted tissue**, {len(seeds)} seeds, ten sections to train on and three "
        "to test on; ± is the standard error over seeds. Chance of the last column: "
        "0.07.\n\n" + "\n".join(rows) + "\n"
    )


def controls(seeds):
    nothing = np.array([one["expression"] for one in seeds.values()])
    apart = np.array([one["coordinates"] - one["target"] for one in seeds.values()])
    n_spots = next(iter(seeds.values()))["n_spots"]
    return (
        f"Controls, {len(seeds)} seeds. Expression of other spots: PCC "
        f"{np.abs(nothing).max():.3f} at most in size (3/√N = "
        f"{3 / np.sqrt(n_spots):.3f}). Surroundings of other spots: "
        f"{apart.mean():+.3f} ± {error(apart):.3f} of the target alone.\n"
    )


def error(values):
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
