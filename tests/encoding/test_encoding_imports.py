"""The package is light until a name is used, and every name is there."""

import subprocess
import sys

import numpy as np

import neuromm.encoding


def test_every_public_name_is_there_and_is_no_module():
    for name in neuromm.encoding.__all__:
        assert callable(getattr(neuromm.encoding, name)), name


def test_delay_is_that_of_prepare():
    from neuromm.prepare.delay import delay

    assert neuromm.encoding.delay is delay
    np.testing.assert_array_equal(delay([[1.0], [2.0]], [1]), [[0.0], [1.0]])


def test_importing_the_package_loads_neither_scipy_nor_scikit_learn():
    code = (
        "import sys, neuromm.encoding; "
        "sys.exit(bool({'sklearn', 'scipy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
