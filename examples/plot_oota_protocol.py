"""
Vision and language in BOLD5000: 2V2, pattern and voxel correlation, and sites
==============================================================================

Oota et al. (2022) predicted fMRI responses to pictures from networks of vision, of
language and of both, and judged them by how well pairs of pictures are told apart (2V2)
and by Pearson's correlation, region by region. This script goes from files on disk to
that table, and on to what it cannot tell: which voxels a multimodal model explains
better than everything simpler.

**The data are simulated**, in the layout of BOLD5000, so that the answer is known. So
are the features. Nothing here says anything about brains. See :doc:`/protocols` for
what differs from the paper and why.
"""

# %%
# A participant on disk
# ---------------------
#
# Every region answers to a sum of the features but RSC, which holds noise alone. There
# we plant what no sum can give: the product of a visual and a verbal feature.
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from neuromm.encoding import RidgeCV, integration_sites, roi_scores
from neuromm.io.bold5000 import open_bold5000
from neuromm.simulate import make_bold5000

folder = Path(tempfile.mkdtemp())
truth = make_bold5000(folder, subjects=("CSI1",), n_pictures=740, n_features=4, rng=0)
responses = open_bold5000(
    folder, "CSI1", rois=["LHPPA", "LHLOC", "LHEarlyVis", "LHRSC"]
)
print(dict(responses.sizes))

# %%
# Features
# --------
#
# A row a picture on screen: repeats have the same. Two columns stand in for a network
# of vision, two for one of language, and a multimodal one has all four and a product.
columns = truth.features.loc[responses["stimulus"].to_numpy()].to_numpy()
vision, language = columns[:, :2], columns[:, 2:]
product = vision[:, :1] * language[:, :1]
spaces = {
    "vision": vision,
    "language": language,
    "joint": np.column_stack([vision, language, product]),
}
in_rsc = (responses["roi"] == "LHRSC").to_numpy()
spread = responses.values.std(axis=0)
responses[:, in_rsc] += 0.5 * product * spread[in_rsc]

# %%
# The published scores
# --------------------
#
# Ten folds as in the paper, but with all presentations of a picture on one side: a
# model that has seen the answer would be praised for it. 2V2 compares pictures of a
# fold.
# In RSC a single modality tells nothing, and ends at the largest penalty.
warnings.filterwarnings("ignore", "[0-9]+% of the targets chose the")
pictures = responses["stimulus"].to_numpy()
folds = list(GroupKFold(10).split(columns, groups=pictures))
fold = np.empty(len(columns), dtype=int)
for number, (_, test) in enumerate(folds):
    fold[test] = number


def predicted(x):
    """Predictions of each fold from the others, (n_samples, n_voxels)."""
    result = np.empty(responses.shape)
    for train, test in folds:
        inner = list(GroupKFold(5).split(x[train], groups=pictures[train]))
        model = RidgeCV(np.logspace(-2, 5, 8), cv=inner)
        result[test] = model.fit(x[train], responses.values[train]).predict(x[test])
    return result


tables = {
    name: roi_scores(responses, predicted(x), groups=fold) for name, x in spaces.items()
}
scores = pd.concat(tables, names=["space"]).reset_index("space")
scores[["space", "roi", "n_voxels", "two_v_two", "pattern_r", "voxel_r"]].round(3)

# %%
# "Pearson" in the paper is ``pattern_r``, over the voxels of a picture; encoding papers
# mostly mean ``voxel_r``, over the pictures of a voxel. They are different numbers.
colours = {"vision": "#0072B2", "language": "#E69F00", "joint": "#009E73"}
names = {"two_v_two": "2V2 accuracy", "pattern_r": "pattern r", "voxel_r": "voxel r"}
regions = list(dict.fromkeys(scores["roi"]))
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained")
for axis, (score, label) in zip(axes, names.items(), strict=True):
    for place, (space, colour) in enumerate(colours.items()):
        values = scores[scores["space"] == space].set_index("roi")[score]
        at = np.arange(len(regions)) + 0.27 * (place - 1)
        axis.bar(at, values[regions], width=0.25, color=colour, label=space)
    axis.axhline(
        0.5 if score == "two_v_two" else 0, color="0.4", linewidth=0.8, linestyle="--"
    )
    axis.set_xticks(np.arange(len(regions)), [one[2:] for one in regions])
    axis.set_ylabel(label)
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylim(0.4, 1)
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False
)
figure.suptitle("Simulated responses of one participant; dashed: chance", fontsize=10)

# %%
# What the table cannot tell
# --------------------------
#
# In the first three regions the multimodal space scores best, too: it holds both
# others, and a sum of the two would do as well. ``integration_sites`` asks for more: a
# voxel must be predicted better than from each modality, from both side by side and
# from banded ridge over both, in resamples of presentations. The folds are those above.
sites = integration_sites(
    spaces,
    responses.to_numpy(),
    groups=fold,
    n_resamples=300,
    rng=0,
)
table = sites.table.assign(roi=responses["roi"].to_numpy())
table.groupby("roi", sort=False).agg(
    voxels=("target", "size"),
    joint=("score_joint", "mean"),
    linear=("score_linear", "mean"),
    gain=("gain", "mean"),
    sites=("is_site", "sum"),
).round(3)

# %%
# Only where a product was planted does the multimodal space add anything.
figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
shades = ["#0072B2", "#E69F00", "#CC79A7", "#009E73"]
for region, colour in zip(regions, shades, strict=True):
    one = table[table["roi"] == region]
    axis.plot(
        one["score_linear"], one["score_joint"], "o", color=colour, label=region[2:]
    )
low, high = axis.get_xlim()[0], max(axis.get_xlim()[1], axis.get_ylim()[1])
axis.plot([low, high], [low, high], color="0.5", linewidth=0.8, linestyle="--")
axis.set_xlabel("both modalities, linear (r)")
axis.set_ylabel("multimodal (r)")
axis.set_title("A mark is a voxel; simulated", loc="left", fontsize=10)
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, fontsize=8)
