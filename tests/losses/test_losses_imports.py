"""The package is light until a loss is used, and every name is there."""

import subprocess
import sys

import neuromm.losses


def test_every_public_name_is_there_and_is_no_module():
    for name in neuromm.losses.__all__:
        assert callable(getattr(neuromm.losses, name)), name


def test_importing_the_package_does_not_load_torch():
    code = "import sys, neuromm.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
