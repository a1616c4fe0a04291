"""The package is light until it trains, and every name is there."""

import subprocess
import sys

import neuromm.training


def test_every_public_name_is_there():
    for name in neuromm.training.__all__:
        assert callable(getattr(neuromm.training, name)), name


def test_importing_the_package_does_not_load_torch():
    code = "import sys, neuromm.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
