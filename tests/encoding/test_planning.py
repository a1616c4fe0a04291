"""The plan is what the fit then does."""

import tracemalloc

import numpy as np
import pytest

from neuromm.core import ResourceLimitError
from neuromm.encoding import RidgeCV, plan
from neuromm.encoding.memory import parse_memory


@pytest.mark.filterwarnings("ignore:.*of the targets chose the")
@pytest.mark.parametrize("shape", [(300, 40, 800), (120, 400, 300)])
def test_a_fit_takes_the_planned_form_and_no_more_than_the_planned_memory(shape):
    n_samples, n_features, n_targets = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_samples, n_features))
    y = rng.standard_normal((n_samples, n_targets))
    planned = plan(*shape, n_alphas=3, dtype=x.dtype)
    RidgeCV().fit(x[:, :3], y[:, :3])  # what importing takes is not the fit's
    tracemalloc.start()
    fit = RidgeCV().fit(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fit.solver_form_ == planned.solver_form
    # An upper bound, and not a loose one: LAPACK's workspace, which tracemalloc does
    # not see, is a part of the plan.
    assert planned.peak_memory / 3 < peak <= planned.peak_memory


def test_a_limit_makes_batches_smaller_and_is_kept():
    shape = (1000, 200, 50_000)
    free = plan(*shape)
    limit = free.peak_memory // 2
    tight = plan(*shape, memory_limit=limit)
    assert tight.target_batch < free.target_batch
    assert tight.peak_memory <= limit
    with pytest.raises(ResourceLimitError, match="Raise the limit"):
        plan(*shape, memory_limit="1MB")


def test_more_work_takes_longer():
    few = plan(1000, 200, 1000).seconds
    assert 0 < few < plan(1000, 200, 20_000).seconds
    assert few < plan(1000, 200, 1000, cv=12).seconds
    assert plan(1000, 200, 10).solver_form.startswith("primal")
    assert plan(200, 1000, 10).solver_form.startswith("dual")


def test_sizes_are_read_in_words():
    assert parse_memory("2GB") == 2_000_000_000
    assert parse_memory("1.5 GiB") == 1_610_612_736
    assert parse_memory(4096) == parse_memory("4096") == 4096
    assert parse_memory(None) is None
