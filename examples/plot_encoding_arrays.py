"""
Which feature space predicts which target?
==========================================

Arrays in, scores out: no files, no command line. The data are simulated, so that the
best score that any model can reach is known for every target.
"""

# %%
# Features and responses
# ----------------------
#
# Two feature spaces with 20 features each and 200 targets. A quarter of the targets
# follows vision, a quarter language, a quarter both, and a quarter is noise.
import matplotlib.pyplot as plt
import numpy as np

from neuromm.encoding import encode
from neuromm.simulate import make_encoding_dataset

data = make_encoding_dataset(n_samples=600, n_targets=200, n_runs=4, snr=0.5, rng=0)
data.features["vision"]

# %%
# Rows are paired by label (subject, run, onset), and runs are never split between
# training and test.
results = encode(data.features, data.responses, n_permutations=200, rng=0)
print(list(results))

# %%
# Scores
# ------
#
# One result a feature space, and ``joint`` for both together. Each gives a long table.
table = results["vision"].to_frame()
print(table.head())

# %%
# Held-out correlation by kind of target. The line is ``r_max``, the correlation of the
# noise-free signal with the responses: no model gets above it in the long run.
kinds = ["vision", "language", "both", "none"]
kind = data.truth["kind"].to_numpy()
figure, axes = plt.subplots(1, len(results), sharey=True, figsize=(9, 3.2))
rng = np.random.default_rng(0)
for axis, (space, result) in zip(axes, results.items(), strict=True):
    r = result.scores["r"].to_numpy()
    for position, name in enumerate(kinds):
        values = r[kind == name]
        axis.plot(position + rng.uniform(-0.2, 0.2, values.size), values, ".", ms=3)
    axis.axhline(data.truth["r_max"].max(), color="0.5", lw=1, label="r_max")
    axis.axhline(0, color="0.8", lw=1, zorder=0)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_title(f"predicted from {space}")
axes[0].set_ylabel("held-out correlation")
axes[0].legend(frameon=False, loc="lower left")
figure.tight_layout()
plt.show()

# %%
# What was found
# --------------
#
# Share of the targets of each kind that are significant at a false discovery rate of
# 5 %.
for space, result in results.items():
    significant = result.scores["q"].to_numpy() < 0.05
    shares = {name: f"{significant[kind == name].mean():.2f}" for name in kinds}
    print(f"{space:>8}", shares)
