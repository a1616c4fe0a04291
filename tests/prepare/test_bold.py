"""Truths about BOLD responses, on images made here."""

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.signal import clean

from neuromm.core import DataError, UsageError
from neuromm.prepare import SurfaceSpace, VoxelSpace, bold_responses, frame_times
from neuromm.prepare.bold import cosine_drifts, remove_confounds

N_VOLUMES, T_R = 120, 2.0
SHAPE = (4, 3, 2)


def image_of(series, affine=None):
    """4-D image whose voxels, in the order of numpy, have the given columns."""
    volumes = np.asarray(series, dtype=np.float32).T.reshape(*SHAPE, len(series))
    return nibabel.Nifti1Image(volumes, np.eye(4) if affine is None else affine)


def whole_mask(affine=None):
    return nibabel.Nifti1Image(
        np.ones(SHAPE, dtype=np.uint8), np.eye(4) if affine is None else affine
    )


def random_series(seed=0):
    rng = np.random.default_rng(seed)
    return 100 + rng.standard_normal((N_VOLUMES, int(np.prod(SHAPE))))


def responses_of(series, **settings):
    settings = {"t_r": T_R, "run": "1", "subject": "01", **settings}
    return bold_responses(image_of(series), VoxelSpace(whole_mask()), **settings)


def test_planted_signal_survives_where_drift_and_confound_go():
    time = np.arange(N_VOLUMES) * T_R
    signal = np.sin(2 * np.pi * time / 20)  # 0.05 Hz, a whole number of periods
    drift = cosine_drifts(N_VOLUMES, T_R, 1 / 128) @ [500, 30, -20, 10]
    motion = np.random.default_rng(1).standard_normal((N_VOLUMES, 2))
    series = signal + drift + motion @ [5.0, -3.0]
    found = responses_of(
        np.tile(series[:, None], int(np.prod(SHAPE))), confounds=motion
    )
    expected = remove_confounds(
        signal[:, None], np.hstack([cosine_drifts(N_VOLUMES, T_R, 1 / 128), motion])
    )
    expected /= expected.std()
    # The image holds values of about 500 in float32: steps of 6e-5, signal of 1.
    np.testing.assert_allclose(found.values, np.tile(expected, 24), atol=2e-4)
    # 2 motion columns and 3 cosines take the share 6 / 120 of a signal's variance.
    assert np.corrcoef(found.values[:, 0], signal)[0, 1] > 0.95


def test_responses_are_orthogonal_to_confounds_and_drifts():
    rng = np.random.default_rng(2)
    motion = rng.standard_normal((N_VOLUMES, 3)).cumsum(axis=0) * [1e-4, 1, 1e4]
    found = responses_of(random_series(), confounds=motion).values.astype(float)
    for columns in (motion - motion.mean(axis=0), cosine_drifts(120, T_R, 1 / 128)):
        cosine = columns.T @ found / np.linalg.norm(columns, axis=0)[:, None]
        # Rounding of the float32 result: 1e-7 x sqrt(120) of a norm of sqrt(120).
        np.testing.assert_allclose(cosine, 0, atol=2e-5)


@pytest.mark.parametrize("high_pass", [1 / 128, 0.02, None])
def test_cleaning_agrees_with_nilearn(high_pass):
    motion = np.random.default_rng(3).standard_normal((N_VOLUMES, 6)).cumsum(axis=0)
    series = random_series() + motion[:, :1]
    peer = clean(
        series.astype(np.float32).astype(float),
        detrend=False,
        standardize="zscore_sample",
        confounds=motion,
        standardize_confounds=True,
        filter=False if high_pass is None else "cosine",
        high_pass=high_pass,
        t_r=T_R,
    )
    found = responses_of(series, confounds=motion, high_pass=high_pass).values
    # nilearn scales by the sample variance, which divides by n - 1.
    scale = np.sqrt(N_VOLUMES / (N_VOLUMES - 1))
    np.testing.assert_allclose(found, peer * scale, atol=1e-5)


def test_dependent_confounds_count_once():
    motion = np.random.default_rng(4).standard_normal((N_VOLUMES, 2))
    doubled = np.hstack([motion, 3 * motion, np.ones((N_VOLUMES, 1))])
    np.testing.assert_allclose(
        responses_of(random_series(), confounds=doubled).values,
        responses_of(random_series(), confounds=motion).values,
        atol=1e-6,
    )


def test_volumes_are_trimmed_after_the_cleaning_and_scaled_afterwards():
    kept = slice(5, N_VOLUMES - 3)
    raw = responses_of(random_series(), standardize=False)
    found = responses_of(random_series(), trim=(5, 3))
    expected = raw.values[kept] - raw.values[kept].mean(axis=0)
    np.testing.assert_allclose(found.values, expected / expected.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(found["onset"], frame_times(N_VOLUMES, T_R)[kept])


def test_each_target_has_mean_zero_and_variance_one():
    found = responses_of(random_series()).values.astype(float)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-6)


def test_the_unit_and_offset_of_the_scanner_do_not_matter():
    series = random_series()
    np.testing.assert_allclose(
        responses_of(4.0 * series + 300).values, responses_of(series).values, atol=2e-4
    )


def test_a_missing_value_costs_its_voxel_alone():
    series = random_series()
    series[7, 3] = np.nan
    series[9, 5] = np.inf
    found = responses_of(series).values
    assert np.isnan(found[:, [3, 5]]).all()
    others = np.delete(np.arange(24), [3, 5])
    np.testing.assert_array_equal(
        found[:, others], responses_of(random_series()).values[:, others]
    )


def test_a_constant_or_fully_explained_voxel_becomes_zero():
    motion = np.random.default_rng(5).standard_normal((N_VOLUMES, 1))
    series = random_series()
    series[:, 2] = 1234.5
    series[:, 4] = np.float32(motion[:, 0])
    found = responses_of(series, confounds=np.float32(motion)).values
    np.testing.assert_array_equal(found[:, [2, 4]], 0)
    assert (found[:, 0] != 0).all()


def test_an_empty_volume_is_named():
    series = random_series()
    series[[4, 40]] = np.nan
    with pytest.raises(DataError, match=r"2 of 120 volumes hold no.*volume 4, 40"):
        responses_of(series)


def test_empty_volumes_at_the_ends_can_be_trimmed():
    series = random_series()
    series[:2] = np.nan
    found = responses_of(series, trim=(2, 0), high_pass=None)
    np.testing.assert_allclose(
        found.values,
        responses_of(random_series(), trim=(2, 0), high_pass=None).values,
        atol=1e-5,
    )


def test_a_mask_outside_the_field_of_view_is_refused():
    with pytest.raises(DataError, match="does the mask lie inside the field of view"):
        responses_of(np.full((N_VOLUMES, 24), np.nan))


def test_confounds_of_another_length_are_refused():
    with pytest.raises(DataError, match="have 119 rows, the scan has 120 volumes"):
        responses_of(random_series(), confounds=np.ones((119, 1)))


def test_missing_confounds_are_named():
    table = pd.DataFrame({"trans_x": np.ones(120), "dvars": np.ones(120)})
    table.loc[0, "dvars"] = np.nan
    with pytest.raises(DataError, match="the confounds dvars have missing values"):
        responses_of(random_series(), confounds=table)


def test_confounds_that_explain_everything_are_refused():
    many = np.random.default_rng(6).standard_normal((N_VOLUMES, 119))
    with pytest.raises(DataError, match="explain all of the 120 volumes"):
        responses_of(random_series(), confounds=many)


def test_trimming_everything_is_refused():
    with pytest.raises(UsageError, match="leaves fewer than two of 120 volumes"):
        responses_of(random_series(), trim=(60, 60))


def test_samples_and_targets_are_labelled():
    found = responses_of(random_series(), run="03", subject="07")
    assert found.dims == ("sample", "target")
    assert set(found["run"].values) == {"03"}
    assert set(found["subject"].values) == {"07"}
    assert list(found["target"].values[:2]) == ["0-0-0", "0-0-1"]
    np.testing.assert_array_equal(found["x"].values[:7], [0, 0, 0, 0, 0, 0, 1])


def test_the_image_is_left_as_it_was():
    image = image_of(random_series())
    before = np.array(image.dataobj)
    bold_responses(
        image, VoxelSpace(whole_mask()), t_r=T_R, run="1", subject="1", trim=(3, 3)
    )
    np.testing.assert_array_equal(image.dataobj, before)


def test_vertices_are_cleaned_as_voxels_are():
    series = random_series().astype(np.float32)
    pair = {
        side: nibabel.GiftiImage(
            darrays=[nibabel.gifti.GiftiDataArray(row) for row in part]
        )
        for side, part in (("left", series[:, :10]), ("right", series[:, 10:]))
    }
    found = bold_responses(pair, SurfaceSpace(10, 14), t_r=T_R, run="1", subject="01")
    np.testing.assert_array_equal(found.values, responses_of(series).values)
    assert list(found["hemi"].values) == ["L"] * 10 + ["R"] * 14
