"""
From a BIDS dataset to a map, by the command line
=================================================

``neuromm encode`` is a BIDS app. Here it runs on a simulated dataset with planted
truth: one subject, fMRI, two feature spaces.
"""

# %%
# A dataset and feature tables
# ----------------------------
#
# The features of a clip stand in a table with one row a ``stim_file``, the column of
# ``events.tsv`` that names the clip. Yours come from any network: see
# :doc:`/features`.
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from nilearn import plotting
from nilearn.image import math_img

from neuromm.simulate import make_bids_dataset
from neuromm_pipelines import encode

folder = Path(tempfile.mkdtemp())
dataset = make_bids_dataset(
    folder / "bids", n_subjects=1, modalities=("fmri",), n_runs=3, rng=0
)
print(pd.read_csv(dataset.features["vision"], sep="\t").iloc[:3, :4])

# %%
# The command
# -----------
#
# In a shell this reads ``neuromm encode bids out participant --features
# vision=vision.tsv language=language.tsv --derivatives fmriprep=…``.
output = folder / "out"
exit_code = encode.main(
    [
        str(dataset.root),
        str(output),
        "participant",
        "--features",
        *(f"{space}={path}" for space, path in dataset.features.items()),
        "--derivatives",
        f"fmriprep={dataset.derivatives['fmriprep']}",
        "--confounds",
        "motion6",
        "--n-permutations",
        "200",
        "--skip-bids-validation",
    ]
)
if exit_code:
    raise SystemExit(exit_code)

# %%
# What it wrote
# -------------
#
# One long table a unit, a map for each feature space and statistic, and a report.
for path in sorted(output.rglob("*")):
    if path.is_file() and "logs" not in path.parts:
        print(path.relative_to(output))

# %%
(scores_path,) = output.rglob("*_desc-encoding_scores.tsv")
scores = pd.read_csv(scores_path, sep="\t", na_values="n/a")
print(scores.sort_values("r", ascending=False).head(8).to_string(index=False))

# %%
# Against the truth
# -----------------
#
# Median held-out correlation by what was planted.
planted = dataset.table.set_index("target")["kind"]
scores["kind"] = scores["target"].map(planted)
print(scores.pivot_table(index="kind", columns="space", values="r", aggfunc="median"))

# %%
# The map of the vision model; outside the mask it is nan. Planted are occipital and
# ventral temporal cortex, and the temporo-parietal junction, which follows both.
(map_path,) = output.rglob("*_contrast-vision_stat-r_statmap.nii.gz")
filled = math_img("np.nan_to_num(img)", img=str(map_path))
plotting.plot_glass_brain(
    filled, threshold=0.2, colorbar=True, title="vision, held-out r"
)
plt.show()
shutil.rmtree(folder)
