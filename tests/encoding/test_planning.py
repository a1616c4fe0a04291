"""The plan is what the fit then does."""

import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

from neuromm.core import ResourceLimitError
from neuromm.encoding import RidgeCV, plan
from neuromm.encoding.memory import parse_memory, target_batches
from neuromm.kernels import RidgeMemory


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


MEASURED = """
    import sys
    import numpy as np
    from neuromm.encoding import RidgeCV, plan

    def status(name):
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith(name))
        return 1024 * int(line.split()[1])

    n, p, v, folds = (int(word) for word in sys.argv[1:5])
    dtype, limit = sys.argv[5], sys.argv[6] if len(sys.argv) > 6 else None
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p), dtype=dtype)
    y = rng.standard_normal((n, v), dtype=dtype)
    alphas = np.geomspace(1.0, 1e5, 20)
    model = RidgeCV(alphas=alphas, cv=folds, memory_limit=limit)
    model.fit(x[: 10 * folds, :9], y[: 10 * folds, :9])  # imports and threads
    planned = plan(n, p, v, n_alphas=20, cv=folds, dtype=dtype, memory_limit=limit)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = status("VmRSS")
    model.fit(x, y)
    assert model.solver_form_ == planned.solver_form
    print(planned.peak_memory / (status("VmHWM") - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak memory to reset"
)
@pytest.mark.parametrize(
    "arguments",
    [
        "2000 600 10000 5 float32",
        "1500 500 5000 5 float64",
        "800 2000 5000 5 float32",
        "600 3000 3000 5 float64",
        "4000 200 20000 5 float32",
        "800 1600 5000 20 float32",
        "1500 400 8000 40 float32",
        "2000 600 20000 5 float32 120MB",
    ],
)
def test_the_peak_that_was_planned_is_within_a_fifth_of_what_is_measured(arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(MEASURED),
         *arguments.split()],
        capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert 0.8 < float(done.stdout) < 1.25


def test_a_limit_makes_batches_smaller_and_is_kept():
    shape = (20_000, 50, 5000)  # most of it is batches
    free = plan(*shape)
    limit = int(0.8 * free.peak_memory)
    tight = plan(*shape, memory_limit=limit)
    assert tight.target_batch < free.target_batch
    assert tight.peak_memory <= limit
    with pytest.raises(ResourceLimitError, match="Raise the limit"):
        plan(*shape, memory_limit="1MB")


def test_batches_narrow_as_results_fill_and_memory_stays_level():
    memory = RidgeMemory(building=0, kept=0, results=80_000_000, per_target=50_000)
    made = target_batches(memory, 20_000, None)
    widths = [one.stop - one.start for one in made.columns]
    assert [one.start for one in made.columns] == [0, *np.cumsum(widths)[:-1]]
    assert sum(widths) == 20_000
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[-2]
    least = memory.results + 8_000_000
    assert least * 0.95 < made.peak <= least


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
