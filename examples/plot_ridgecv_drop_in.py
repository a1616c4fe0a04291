"""
In place of scikit-learn's RidgeCV: leave-one-out and blocks
============================================================

scikit-learn's ``RidgeCV`` with a penalty for each target leaves out one sample at a
time. neuromm does the same job with the same result, and as readily leaves out blocks,
which samples that follow each other in time need.
"""

# %%
# Data
# ----
#
# 300 samples, 30 features, 400 sensors whose noise changes slowly.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeCV as SklearnRidgeCV
from sklearn.model_selection import LeaveOneOut

from neuromm.encoding import BlockedKFold, RidgeCV

rng = np.random.default_rng(0)
n_samples, n_features, n_sensors = 300, 30, 400


def slow(shape):
    """Noise in which neighbouring samples resemble each other."""
    steps = rng.standard_normal(shape)
    for sample in range(1, shape[0]):
        steps[sample] += 0.8 * steps[sample - 1]
    return steps


X = slow((n_samples, n_features))
weights = rng.standard_normal((n_features, n_sensors)) / n_features**0.5
Y = X @ weights + slow((n_samples, n_sensors)) * np.geomspace(0.5, 4, n_sensors)
alphas = np.logspace(-2, 6, 25)

# %%
# With scikit-learn
# -----------------
theirs = SklearnRidgeCV(alphas=alphas, alpha_per_target=True).fit(X, Y)

# %%
# With neuromm
# ------------
#
# scikit-learn leaves out one sample and takes the squared error. Both are said here.
model = RidgeCV(alphas=alphas, cv=LeaveOneOut(), scoring="mse").fit(X, Y)
print(model.solver_form_)

# %%
# Equal penalties, equal weights. ``coef_`` has one column a target here; scikit-learn
# has one row a target. Without ``alpha_per_target=False`` each target has a penalty of
# its own.
print("equal penalties:", np.isclose(model.best_alphas_, theirs.alpha_).mean())
print("scores differ by", np.abs(model.cv_scores_ - theirs.best_score_).max())
print("weights differ by", np.abs(model.coef_ - theirs.coef_.T).max())
if not np.isclose(model.best_alphas_, theirs.alpha_).all():
    raise SystemExit("the penalties are not the same")

# %%
# Blocks instead of single samples
# --------------------------------
#
# With slow noise, a sample that is left out has neighbours in the training set that
# tell its noise: leave-one-out then takes penalties that are too small. Blocks with a
# gap tell signal from time. Only ``cv`` changes; samples are 1 s apart. The warning is
# part of the answer: of the noisiest sensors nothing can be predicted.
blocks = BlockedKFold(n_splits=5, purge=10, onset=np.arange(n_samples))
blocked = RidgeCV(alphas=alphas, cv=blocks, scoring="mse").fit(X, Y)
print(blocked.solver_form_)

figure, axis = plt.subplots(figsize=(6, 3.2))
noise = np.geomspace(0.5, 4, n_sensors)
for fitted, label in ((model, "leave one out"), (blocked, "blocks, 10 s apart")):
    axis.loglog(noise, fitted.best_alphas_, ".", ms=3, label=label)
axis.set(xlabel="standard deviation of the noise", ylabel="chosen penalty")
axis.legend(frameon=False)
figure.tight_layout()
plt.show()
