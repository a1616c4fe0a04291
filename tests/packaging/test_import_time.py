"""Starting is light: no heavy package is loaded before it is needed."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "cupy", "mne", "nilearn", "nibabel", "scanpy", "monai", "anndata")


def fresh(statement: str) -> str:
    """Heavy packages that a new interpreter has after a statement, and its time."""
    script = (
        "import sys, time\nstarted = time.perf_counter()\n"
        f"{statement}\nelapsed = time.perf_counter() - started\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
        "print(f'{elapsed:.3f} s', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # A test never asserts a wall time; `pytest -s` shows it.
    print(f"{statement}: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    [
        "import neuromm",
        "import neuromm_pipelines.cli",
        "import neuromm.core, neuromm.io, neuromm.features, neuromm.prepare",
        "import neuromm.encoding, neuromm.simulate, neuromm.atlas, neuromm.kernels",
        "import neuromm.report",
    ],
)
def test_an_import_loads_nothing_heavy(statement):
    assert fresh(statement) == "[]"
