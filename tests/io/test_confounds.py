"""Confounds of a preprocessed run: named sets, and columns that cannot be used."""

import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, InputMissingError
from neuromm.io import fmri


@pytest.fixture
def confounds(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    table = pd.DataFrame(rng.standard_normal((5, 6)), columns=names)
    for name in names:
        table[f"{name}_derivative1"] = table[name].diff()
        table[f"{name}_power2"] = table[name] ** 2
        table[f"{name}_derivative1_power2"] = table[f"{name}_derivative1"] ** 2
    more = ["csf", "white_matter", *(f"a_comp_cor_{i:02d}" for i in range(8))]
    for name in [*more, "cosine00", "cosine01", "global_signal"]:
        table[name] = rng.standard_normal(5)
    table["std_dvars"] = [np.nan, 1, 2, 1, 2]
    path = tmp_path / "sub-01_task-film_desc-confounds_timeseries.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


@pytest.mark.parametrize(
    ("name", "n_columns"),
    [("motion6", 6), ("motion24", 24), ("wm_csf", 2), ("acompcor5", 5), ("cosine", 2)],
)
def test_named_sets_have_their_columns(confounds, name, n_columns):
    found = fmri.load_confounds(confounds, name)
    assert found.shape == (5, n_columns)
    assert np.isfinite(found.to_numpy()).all()


def test_motion24_is_motion_its_derivatives_and_their_squares(confounds):
    found = fmri.load_confounds(confounds, "motion24").to_numpy()
    motion = fmri.load_confounds(confounds, "motion6").to_numpy()
    difference = np.diff(motion, axis=0, prepend=motion[:1])
    expected = np.hstack([motion, difference, motion**2, difference**2])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_names_and_sets_mix_and_each_column_comes_once(confounds):
    found = fmri.load_confounds(confounds, ["csf", "wm_csf", "std_dvars", "csf"])
    assert list(found) == ["csf", "white_matter", "std_dvars"]
    assert found["std_dvars"].tolist() == [0, 1, 2, 1, 2]
    assert fmri.load_confounds(confounds, []).shape == (5, 0)


def test_missing_columns_are_listed(confounds):
    with pytest.raises(DataError, match=r"lacks a, motion7 \(columns: trans_x"):
        fmri.load_confounds(confounds, ["a", "csf", "motion7"])


def test_gaps_beyond_the_first_derivative_are_refused(confounds):
    table = pd.read_csv(confounds, sep="\t")
    table.loc[2, "csf"] = np.nan
    table.loc[0, "white_matter"] = np.nan
    table.to_csv(confounds, sep="\t", index=False, na_rep="n/a")
    with pytest.raises(DataError, match=r"csf: 1 values .* volume 3"):
        fmri.load_confounds(confounds, "csf")
    with pytest.raises(DataError, match=r"white_matter: .* volume 1"):
        fmri.load_confounds(confounds, "white_matter")


def test_text_among_confounds_is_refused(confounds):
    confounds.write_text("csf\tlabel\n1\ta\n2\tb\n")
    with pytest.raises(DataError, match=r"numbers .* in label, got text"):
        fmri.load_confounds(confounds, "label")
    with pytest.raises(InputMissingError, match=r"nowhere\.tsv"):
        fmri.load_confounds(confounds.with_name("nowhere.tsv"), "csf")
