"""A banded fit that was killed goes on; results on disk need no room in memory."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from neuromm.core import ResourceLimitError, UsageError
from neuromm.encoding import BandedRidgeCV, plan

ALPHAS = np.geomspace(1e-2, 1e6, 9)
SPACES = {"vision": slice(0, 12), "language": slice(12, 20)}
SETTINGS = {
    "alphas": ALPHAS,
    "n_iter": 8,
    "random_state": 3,
    "spaces": SPACES,
    "memory_limit": "500KB",
}
RESULTS = (
    "coef_",
    "intercept_",
    "y_mean_",
    "best_alphas_",
    "best_gammas_",
    "cv_scores_",
    "valid_targets_",
    "cv_scores_path_",
)

pytestmark = pytest.mark.filterwarnings("ignore:.*of the targets")


def problem(n_targets=300):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 20))
    weights = rng.standard_normal((20, n_targets))
    weights[12:, ::2] = 0
    y = x @ weights + 3 * rng.standard_normal((90, n_targets))
    y[0, 5] = np.nan
    return x, y


KILLED = """
    import os, signal, sys
    import numpy as np
    from neuromm.encoding import BandedRidgeCV, fit_checkpoint
    store, count = fit_checkpoint.FitCheckpoint.store, 0
    def killed(self, *batch):
        global count
        store(self, *batch)
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    fit_checkpoint.FitCheckpoint.store = killed
    x, y = np.load(sys.argv[1]), np.load(sys.argv[2])
    spaces = {"vision": slice(0, 12), "language": slice(12, 20)}
    BandedRidgeCV(alphas=np.geomspace(1e-2, 1e6, 9), n_iter=8, random_state=3,
                  spaces=spaces, memory_limit="500KB", checkpoint=sys.argv[3]).fit(x, y)
"""


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tmp_path):
    x, y = problem()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED),
         tmp_path / "x.npy", tmp_path / "y.npy", killed],
        env=os.environ, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    # In memory, a batch may be of another width: results agree, and not to the bit.
    expected = BandedRidgeCV(**{**SETTINGS, "memory_limit": None}).fit(x, y)
    goes_on, undisturbed = (
        BandedRidgeCV(**SETTINGS, checkpoint=folder).fit(x, y)
        for folder in (killed, whole)
    )
    for name in RESULTS:
        values = getattr(goes_on, name)
        np.testing.assert_array_equal(values, getattr(undisturbed, name), name)
        np.testing.assert_allclose(
            values, getattr(expected, name), rtol=1e-8, atol=1e-10, err_msg=name
        )
    assert (killed / "manifest.json").read_bytes() == (
        whole / "manifest.json"
    ).read_bytes()
    np.testing.assert_array_equal(goes_on.predict(x), undisturbed.predict(x))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"random_state": 4}, "gammas"),
        ({"spaces": {"all": slice(0, 10), "rest": slice(10, 20)}}, "spaces"),
        ({"scoring": "correlation"}, "scoring"),
    ],
)
def test_another_fit_in_the_folder_is_refused_by_what_differs(tmp_path, changed, named):
    x, y = problem(40)
    BandedRidgeCV(**SETTINGS, checkpoint=tmp_path).fit(x, y)
    with pytest.raises(UsageError, match=named):
        BandedRidgeCV(**SETTINGS | changed, checkpoint=tmp_path).fit(x, y)


def test_results_on_disk_need_no_room_in_memory(tmp_path):
    x, y = problem(6000)
    limit = x.shape[1] * y.shape[1] * x.itemsize  # of the weights themselves
    settings = {**SETTINGS, "memory_limit": limit}
    with pytest.raises(ResourceLimitError, match="memory_limit"):
        BandedRidgeCV(**settings).fit(x, y)
    planned = plan(
        *x.shape, y.shape[1], n_alphas=len(ALPHAS), memory_limit=limit,
        n_spaces=2, n_candidates=8, checkpoint=True,
    )  # fmt: skip
    fitted = BandedRidgeCV(**settings, checkpoint=tmp_path).fit(x, y)
    assert planned.peak_memory <= limit
    assert planned.solver_form == fitted.solver_form_
    whole = BandedRidgeCV(**{**SETTINGS, "memory_limit": None}).fit(x, y)
    np.testing.assert_allclose(fitted.coef_, whole.coef_, rtol=1e-7, atol=1e-9)


def test_a_banded_fit_is_planned_from_the_work_of_its_candidates():
    few = plan(500, 100, 5000, n_spaces=2, n_candidates=10)
    many = plan(500, 100, 5000, n_spaces=2, n_candidates=100)
    assert 5 < many.seconds / few.seconds < 10.5
    assert many.peak_memory == few.peak_memory
    y = np.zeros((60, 0))
    with pytest.raises(UsageError, match="no targets"):
        BandedRidgeCV(spaces={"one": slice(0, 1)}).fit(np.ones((60, 1)), y)
