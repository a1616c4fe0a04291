"""
Which feature space does each target rely on?
=============================================

Ridge has one penalty for all features, banded ridge one for each feature space, and
every target has its own. Here a wide space, vision, stands beside a narrow one,
language, and the truth is known: some targets follow vision, some language, some both.
"""

# %%
# Two spaces of unequal width
# ---------------------------
#
# 300 columns of vision, 20 of language, and 400 targets. The part that language has in
# the signal goes from 0 to 1.
import matplotlib.pyplot as plt
import numpy as np

from neuromm.encoding import BandedRidgeCV, RidgeCV, r2_score

rng = np.random.default_rng(0)
n_train, n_test, n_targets = 400, 400, 400
sizes = {"vision": 300, "language": 20}
spaces = {
    name: rng.standard_normal((n_train + n_test, size)) for name, size in sizes.items()
}
part_of_language = np.linspace(0, 1, n_targets)
signal = np.zeros((n_train + n_test, n_targets))
for name, part in (("vision", 1 - part_of_language), ("language", part_of_language)):
    weights = rng.standard_normal((sizes[name], n_targets)) / np.sqrt(sizes[name])
    signal += np.sqrt(part) * (spaces[name] @ weights)
responses = signal + rng.standard_normal(signal.shape)

train, test = slice(0, n_train), slice(n_train, None)
seen = {name: space[train] for name, space in spaces.items()}
unseen = {name: space[test] for name, space in spaces.items()}

# %%
# One penalty, and one for each space
# -----------------------------------
#
# Forty candidates of weights, each with twenty penalties, on five folds.
alphas = np.geomspace(1, 1e5, 20)
ridge = RidgeCV(alphas=alphas)
ridge.fit(np.hstack(list(seen.values())), responses[train])
banded = BandedRidgeCV(alphas=alphas, n_iter=40, random_state=0)
banded.fit(seen, responses[train])
print(banded.solver_form_, banded.space_names_)

# %%
# On unseen samples
# -----------------
#
# With one penalty the 300 columns of vision cost every target, even one that has
# nothing to do with them. Banded ridge shuts them out where they do not help.
r2 = {
    "one penalty": r2_score(
        responses[test], ridge.predict(np.hstack(list(unseen.values())))
    ),
    "one for each space": r2_score(responses[test], banded.predict(unseen)),
}
shares = banded.score(unseen, responses[test], split=True)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
bins = np.array_split(np.arange(n_targets), 15)
middle = [part_of_language[one].mean() for one in bins]
for name, values in r2.items():
    axes[0].plot(middle, [values[one].mean() for one in bins], "o-", label=name)
axes[0].axhline(0.5, color="0.6", lw=1)
axes[0].text(0.02, 0.505, "noise ceiling", color="0.4", va="bottom")
axes[0].set_ylim(0, 0.55)
axes[0].set_ylabel("R2 on unseen samples")
axes[0].set_xlabel("part of language in the signal")
axes[0].legend(frameon=False, loc="lower left")

for name, share in zip(banded.space_names_, shares, strict=True):
    axes[1].plot(middle, [share[one].mean() for one in bins], "o-", label=name)
axes[1].set_ylabel("share of R2 (product measure)")
axes[1].set_xlabel("part of language in the signal")
axes[1].legend(frameon=False)

tried = np.arange(1, len(banded.cv_scores_path_) + 1)
axes[2].plot(tried, banded.cv_scores_path_, drawstyle="steps-post")
axes[2].set_ylabel("mean best R2 (cross-validated)")
axes[2].set_xlabel("candidates tried")
figure.tight_layout()
plt.show()

# %%
# The right panel says when to stop: where it has levelled off, more candidates change
# little. In the middle one the shares of both spaces sum to the R2 of their joint
# prediction.
for name, values in r2.items():
    print(f"{name:>18}: mean R2 {values.mean():.3f}")
