"""The package is light until something is measured, and every name is there."""

import subprocess
import sys

import neuromm.metrics


def test_every_public_name_is_there():
    for name in neuromm.metrics.__all__:
        assert callable(getattr(neuromm.metrics, name)), name


def test_importing_the_package_loads_neither_torch_nor_monai():
    code = (
        "import sys, neuromm.metrics as m; m.dice([1], [1]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
