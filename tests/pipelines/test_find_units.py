"""A run is encoded once."""

import pandas as pd
import pytest

from neuromm.core import Study, UsageError
from neuromm_pipelines.encode_unit import EncodingUnit, _check_runs


def _unit(runs):
    table = pd.DataFrame(
        {"run": runs, "path": [f"{i}.nii.gz" for i in range(len(runs))]}
    )
    return EncodingUnit({"subject": "01"}, "func", Study(table, lambda row: None))


def test_a_run_from_two_data_sets_is_refused_by_the_names_of_both_files():
    with pytest.raises(UsageError, match=r"0\.nii\.gz, 2\.nii\.gz.*bids-filter-file"):
        _check_runs(_unit(["1", "2", "1"]))


@pytest.mark.parametrize("runs", [["1", "2"], [None]])
def test_runs_of_their_own_and_a_single_unlabelled_one_are_fine(runs):
    _check_runs(_unit(runs))
