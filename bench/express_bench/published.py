"""The protocol of the paper on its data sets, from what ``neuromm express fit`` wrote.

Features of UNI and the pictures are not free to hand on, so nothing of this is run
here: a row is empty until somebody has trained on the data.
"""

import csv
import json
from pathlib import Path

# Sections, patients and what is left out, as published.
DATA_SETS = {
    "her2st": ("HER2ST", "36 sections, 8 patients, each left out once"),
    "skinst": ("cSCC", "12 sections, 4 patients, each left out once"),
    "stnet": ("STNet", "68 sections, 23 patients in 8 folds"),
}
MODELS = {"ridge": "ridge probe", "GeneDML": "Gene-DML"}
MEASURES = ("pcc", "pcc_h", "mse", "mae")


def run(folders):
    """Means over patients of each model folder, and what it was trained with."""
    found = {}
    for word in folders:
        name, equals, folder = word.partition("=")
        if name not in DATA_SETS or not equals:
            raise SystemExit(
                f"express.py: --model-dirs takes NAME=FOLDER, NAME one of "
                f"{', '.join(DATA_SETS)}, got {word!r}"
            )
        settings = json.loads((Path(folder) / "express.json").read_text())
        with open(Path(folder) / "means.tsv", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        found[name] = {
            "encoder": settings["encoder"],
            "is_stand_in": settings["is_stand_in"],
            "n_genes": len(settings["genes"]),
            "means": {
                model: {
                    row["measure"]: float(row["mean"])
                    for row in rows
                    if row["model"] == model and row["measure"] in MEASURES
                }
                for model in MODELS
            },
        }
    return {"data_sets": found}


def table(found):
    """Rows of all data sets; cells of those that nobody has run are empty."""
    head = "| Data | Encoder | Model | PCC(A) | PCC(H) | MSE | MAE |\n" + "| --- " * 7
    rows = []
    for name, (title, folds) in DATA_SETS.items():
        one = found.get(name)
        encoder = ""
        if one is not None:
            encoder = one["encoder"] + (" (a stand-in)" if one["is_stand_in"] else "")
        for model, words in MODELS.items():
            cells = ["" for _ in MEASURES]
            if one is not None:
                own = one["means"][model]
                cells = [f"{own[measure]:.3f}" for measure in MEASURES]
            rows.append(
                f"| {title}: {folds} | {encoder} | {words} | {' | '.join(cells)} |"
            )
    return (
        "**The protocol of the paper**, patients left out. A cell is empty where it "
        "was not run: the weights of UNI and the pictures are restricted.\n\n"
        f"{head}|\n" + "\n".join(rows) + "\n"
    )
