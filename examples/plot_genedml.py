"""
What a patch cannot know: genes from three scales of a section
==============================================================

Gene-DML on simulated tissue. Some genes follow the spot itself, some what lies around
it, and some a state of the whole section that no single spot shows. The sections are
simulated, so it is known which part of the network each of them needs.
"""

# %%
# Sections
# --------
#
# A section a patient, 12 x 12 spots, 30 genes. A spot's features stand for the vector
# that a frozen network makes of its patch.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from neuromm.encoding import RidgeCV
from neuromm.metrics import expression_correlation
from neuromm.models import GeneDML, GeneDMLConfig, predict_expression
from neuromm.simulate import make_tissue_sections
from neuromm.training import ExpressionTask, TissueSpots, TrainingConfig, fit

sections = make_tissue_sections(9, rng=3)
training, held = sections[:8], sections[8]
expression = [np.log1p(section.counts) for section in sections]
mean = np.concatenate(expression[:8]).mean(axis=0)
expression = [values - mean for values in expression]
truth = expression[8]

# %%
# Three networks and a regression
# -------------------------------
#
# Each network sees one scale more than the one before. The ridge regression sees the
# patch, as does the first network. `fit` chooses the epoch on a patient within the
# training set; the ninth patient is never asked.
spots = TissueSpots([section.features for section in training], expression[:8])
patients = [training[number].patient for number in spots.section]


def trained(scales):
    """Network of some of the scales, trained for a short time."""
    config = GeneDMLConfig(
        n_features=32,
        n_genes=30,
        dim=64,
        scales=scales,
        neighbor_depth=1,
        neighbor_mlp=64,
        neighbor_dropout=0.1,
        global_depth=2,
        global_heads=4,
        global_mlp=64,
        global_dropout=0.1,
        fusion_mlp=128,
        head_width=128,
        n_groups=12,
        instance_weight=0.03,
        group_weight=0.03,
    )
    torch.manual_seed(0)
    model = GeneDML(config)
    settings = TrainingConfig(
        n_epochs=15,
        batch_size=144,
        learning_rate=2e-3,
        weight_decay=1e-2,
        schedule="cosine",
        validation_fraction=0.125,
        monitor="pcc",
        higher_is_better=True,
    )
    task = ExpressionTask(spots, config)
    fit(model, spots, settings, task=task, groups=patients)
    return model


ridge = RidgeCV(alphas=np.geomspace(1e-1, 1e5, 13), cv=8)
ridge.fit(
    np.concatenate([section.features.overview for section in training]).astype(float),
    np.concatenate(expression[:8]),
)
predicted = {"ridge of the patch": ridge.predict(held.features.overview.astype(float))}
for scales in (("target",), ("target", "neighbor"), ("target", "neighbor", "global")):
    name = "target" if len(scales) == 1 else f"+ {scales[-1]}"
    predicted[name] = predict_expression(trained(scales), held.features).expression

scores = {
    name: expression_correlation(values, truth, [held.patient] * len(truth))
    for name, values in predicted.items()
}
pd.DataFrame(
    [(name, score.pcc, score.mse, score.n_constant) for name, score in scores.items()],
    columns=["model", "PCC(A)", "mean squared error", "constant genes"],
).round(3)

# %%
# A gene that its surroundings decide
# -----------------------------------
#
# The gene that gains most from the tiles around a spot, on the section left out.
gain = scores["+ neighbor"].by_gene[0] - scores["target"].by_gene[0]
gene = int(np.argmax(gain))
shown = {"measured": truth, **predicted}
figure, axes = plt.subplots(1, 5, figsize=(12, 3), layout="constrained")
row, column = held.features.grid.T
for axis, (name, values) in zip(axes, shown.items(), strict=True):
    dots = axis.scatter(
        column, row, c=values[:, gene], s=55, marker="s", vmin=-1.5, vmax=1.5,
        cmap="viridis",
    )  # fmt: skip
    score = "" if name == "measured" else f"\nr = {scores[name].by_gene[0, gene]:.2f}"
    axis.set(title=name + score, xticks=[], yticks=[], aspect="equal")
    axis.invert_yaxis()
figure.colorbar(dots, ax=axes, label="log counts, centred", shrink=0.8)
figure.suptitle(f"Gene {gene + 1} of a simulated section that was left out")
