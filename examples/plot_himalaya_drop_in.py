"""
In place of himalaya: the same script, the same numbers
=======================================================

A script in the manner of the voxelwise tutorials: standardised features, delays in
place of a haemodynamic response, a ridge penalty for every voxel. First with himalaya,
then with neuromm. Runs are made on the spot.
"""

# %%
# Data
# ----
#
# Four runs of 150 volumes; 40 features of the film; 500 voxels, each following the
# features of some seconds ago, with noise of its own strength.
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from neuromm.encoding import RidgeCV, RunKFold, correlation_score, delay

rng = np.random.default_rng(0)
n_runs, run_length, n_features, n_voxels = 4, 150, 40, 500
runs = np.repeat(np.arange(n_runs), run_length)
features = rng.standard_normal((len(runs), n_features)).astype("float32")
delays = [1, 2, 3, 4]
response = delay(features, delays, runs=runs)
weights = rng.standard_normal((response.shape[1], n_voxels)) / response.shape[1] ** 0.5
noise = rng.standard_normal((len(runs), n_voxels)) * np.geomspace(0.3, 5, n_voxels)
voxels = (response @ weights + noise).astype("float32")

train = runs < n_runs - 1
X, X_test = features[train], features[~train]
Y, Y_test = voxels[train], voxels[~train]
folds = list(RunKFold().split(X, groups=runs[train]))
alphas = np.logspace(0, 6, 20)

# %%
# Delays are of the samples of a run, so features are delayed before runs are split
# apart. One scaler, of the training runs alone, is used by both scripts.
scaler = StandardScaler(with_std=False).fit(X)
delayed = delay(scaler.transform(X), delays, runs=runs[train])
delayed_test = delay(scaler.transform(X_test), delays)

# %%
# With himalaya
# -------------
#
# Samples outnumber features here, so this is its ``RidgeCV``; with more features than
# samples it would be ``KernelRidgeCV``. The batches are what keeps it within memory,
# and are chosen by hand. Where himalaya is not installed, the script goes on without.


def with_himalaya():
    """Fit as the tutorials do."""
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV

    set_backend("numpy")
    model = RidgeCV(
        alphas=alphas,
        cv=folds,
        fit_intercept=True,
        solver_params={
            "n_targets_batch": 500,
            "n_alphas_batch": 5,
            "n_targets_batch_refit": 100,
        },
    )
    return model.fit(delayed, Y)


try:
    start = time.perf_counter()
    theirs = with_himalaya()
    print(f"himalaya: {time.perf_counter() - start:.2f} s")
except ImportError:
    theirs = None
    print('himalaya is not installed: pip install "himalaya"')

# %%
# With neuromm
# ------------
#
# One estimator for any shape, and no batch to choose. himalaya chooses a penalty by
# the squared error unless told otherwise; here that has a name.
start = time.perf_counter()
model = RidgeCV(alphas=alphas, cv=folds, scoring="mse").fit(delayed, Y)
print(f"neuromm: {time.perf_counter() - start:.2f} s, {model.solver_form_}")

# %%
# The same penalties, scores and weights, to the rounding of float32:
if theirs is not None:
    same = np.isclose(model.best_alphas_, theirs.best_alphas_, rtol=1e-4)
    print(f"equal penalties: {same.mean():.1%}")
    print(f"scores differ by {np.abs(model.cv_scores_ - theirs.cv_scores_).max():.0e}")
    step = np.abs(model.coef_ - theirs.coef_)[:, same].max()
    print(f"weights differ by {step:.0e}")

# %%
# In a pipeline
# -------------
#
# It is an estimator of scikit-learn, so it stands where ``KernelRidgeCV`` stood. A
# delay within a pipeline takes all samples for one run: the first volumes of a run
# then see the end of the run before it. Delaying run by run, as above, avoids it.
pipeline = make_pipeline(
    StandardScaler(with_std=False),
    FunctionTransformer(delay, kw_args={"delays": delays}),
    RidgeCV(alphas=alphas, cv=folds, scoring="mse"),
)
pipeline.fit(X, Y)
print(pipeline.predict(X_test).shape)

# %%
# Held-out run
# ------------
r = correlation_score(Y_test, model.predict(delayed_test))
figure, axis = plt.subplots(figsize=(6, 3.2))
axis.semilogx(np.geomspace(0.3, 5, n_voxels), r, ".", ms=3)
axis.set(xlabel="standard deviation of the noise", ylabel="correlation in the last run")
figure.tight_layout()
plt.show()
