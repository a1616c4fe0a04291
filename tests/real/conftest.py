"""Where the real recordings lie."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real recordings: NEUROMM_TEST_DATA, or ../shared/data."""
    checkout = Path(__file__).resolve().parents[2]
    default = checkout.parent / "shared" / "data"
    folder = Path(os.environ.get("NEUROMM_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(
            f"no real recordings in {folder}; set NEUROMM_TEST_DATA to their folder"
        )
    return folder
