"""Tables of bench/segment.py in docs/ivdnet.md."""

from statistics import mean, stdev

START = "<!-- tables made by: python bench/segment.py --write-docs -->"
END = "<!-- end of the tables -->"

NETWORKS = {"ivdnet": "IVD-Net", "unet": "U-Net (MONAI)"}


def write(results, page):
    """Replace what stands between the marks of a page."""
    text = page.read_text()
    before, found, rest = text.partition(START)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{page} has no place for the tables: {START} … {END}")
    page.write_text(before + START + "\n\n" + tables(results) + "\n\n" + END + after)


def tables(results):
    jobs = results["jobs"]
    parts = [machine(results)]
    for make in (planted, spider, open_ms):
        made = make(jobs)
        if made:
            parts.append(made)
    return "\n\n".join(parts)


def machine(results):
    told = results["machine"]
    names = ("neuromm", "torch", "monai")
    versions = ", ".join(f"{name} {told[name]}" for name in names)
    return f"Two cores of a Xeon; Python {told['python']}, {versions}."


def planted(jobs):
    """A row a variant: Dice of each seed, its mean, localisation."""
    rows = {}
    for label, result in jobs.items():
        kind, _, rest = label.partition(":")
        if kind == "planted":
            seed, _, variant = rest.partition(":")
            rows.setdefault(variant, {})[int(seed)] = result
    if not rows:
        return ""
    one = next(iter(next(iter(rows.values())).values()))
    n_spines = 10
    lines = [
        f"**Simulated Dixon spines**, width {one['width']}, {one['epochs']} epochs, "
        f"learning rate {one['learning_rate']:g}, {n_spines} spines to train on and 4 "
        "to test on for each seed:",
        "",
        "| Network | Dice of seeds | mean | centres, mm | within 2 mm | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for variant, seeds in rows.items():
        found = [seeds[seed] for seed in sorted(seeds)]
        scores = [result["dice"] for result in found]
        errors = [r["localisation_mm"] for r in found if r["localisation_mm"]]
        error = f"{mean(errors):.2f}" if errors else "n/a"
        lines.append(
            f"| {variant} | {', '.join(f'{s:.3f}' for s in scores)} | "
            f"**{mean(scores):.3f}** | {error} | "
            f"{mean(r['detection_rate'] for r in found):.0%} | "
            f"{mean(r['minutes'] for r in found):.1f} |"
        )
    return "\n".join(lines)


def spider(jobs):
    """A row a network: Dice of each fold, mean over folds."""
    texts = []
    for kind, title in (
        ("spider", "discs"),
        ("spider-all", "discs, vertebrae and canal"),
    ):
        folds = {}
        for label, result in jobs.items():
            name, _, rest = label.partition(":")
            if name == kind:
                fold, _, network = rest.partition(":")
                folds.setdefault(network, {})[int(fold)] = result
        if folds:
            texts.append(of_folds(title, folds))
    return "\n\n".join(texts)


def of_folds(title, folds):
    one = next(iter(next(iter(folds.values())).values()))
    classes = list(one["dice"])
    n_patients = sum(r["n_test_patients"] for r in next(iter(folds.values())).values())
    lines = [
        f"**SPIDER slices, {title}**: {n_patients} patients, five folds of whole "
        f"patients, width {one['width']}, {one['epochs']} epochs, learning rate "
        f"{one['learning_rate']:g}, one pixel of the network for {one['step']} x "
        f"{one['step']} of the slice (Dice is at full resolution), one thread:",
        "",
        "| Network | parameters | "
        + " | ".join(f"Dice, {c}" for c in classes)
        + f" | {classes[0]} by fold | minutes a fold |",
        "| --- | --- | " + " | ".join("---" for _ in classes) + " | --- | --- |",
    ]
    for network, results in folds.items():
        found = [results[fold] for fold in sorted(results)]
        patients = [p for result in found for p in result["by_patient"]]
        by_class = [[p[k] for p in patients] for k in range(len(classes))]
        means = [f"**{mean(v):.3f}** ± {stdev(v):.3f}" for v in by_class]
        by_fold = ", ".join(f"{r['dice'][classes[0]]:.3f}" for r in found)
        minutes = mean(r["minutes"] for r in found)
        lines.append(
            f"| {NETWORKS[network]} | {found[0]['parameters']:,} | "
            + " | ".join(means)
            + f" | {by_fold} | {minutes:.1f} |"
        )
    lines += ["", "± is the standard deviation over patients."]
    return "\n".join(lines)


def open_ms(jobs):
    """A row 2-D and 3-D: Dice with all sequences, and without each."""
    found = {
        label.partition(":")[2]: result
        for label, result in jobs.items()
        if label.startswith("open-ms:")
    }
    if not found:
        return ""
    one = next(iter(found.values()))
    without = [name for name in one if name.startswith("without ")]
    lines = [
        f"**Four sequences with a lesion mask** (one patient of open_ms; two of six "
        f"blocks of sixteen slices left out, so nothing is said about other patients), "
        f"{one['epochs']} epochs, learning rate {one['learning_rate']:g}, modality "
        "dropout 0.2; Dice of lesions:",
        "",
        "| Network | width | all four | " + " | ".join(without) + " | minutes |",
        "| --- | --- | --- | " + " | ".join("---" for _ in without) + " | --- |",
    ]
    for sides, result in sorted(found.items()):
        scores = " | ".join(f"{result[name]:.2f}" for name in without)
        lines.append(
            f"| {sides}-D | {result['width']} | {result['dice']:.2f} | {scores} | "
            f"{result['minutes']:.1f} |"
        )
    return "\n".join(lines)
