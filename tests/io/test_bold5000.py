"""BOLD5000: files, pictures and repeats, and planted responses found again."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from neuromm.core import (
    DataError,
    InputMissingError,
    UsageError,
    feature_matrix,
    pair_samples,
)
from neuromm.encoding import RidgeCV, noise_ceiling
from neuromm.encoding.pairwise_accuracy import roi_scores
from neuromm.io.bold5000 import ROIS, VOLUMES, open_bold5000
from neuromm.simulate.image_datasets import VOLUME_GAINS, make_bold5000


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A data set that no test may change."""
    return make_bold5000(tmp_path_factory.mktemp("bold5000"), n_pictures=60)


@pytest.fixture
def own(tmp_path):
    """A data set of the test's own."""
    return make_bold5000(tmp_path, subjects=("CSI1",), n_pictures=12, n_repeated=2)


def matrix(truth, subject, volume, roi):
    return loadmat(truth.root / f"ROIs/{subject}/mat/{subject}_ROIs_{volume}.mat")[roi]


@pytest.mark.parametrize("name", ["CSI2", 2, "2", "csi2"])
def test_a_response_is_the_mean_of_the_six_files(truth, name):
    responses = open_bold5000(truth.root, name)
    files = [matrix(truth, "CSI2", volume, "RHLOC") for volume in VOLUMES]
    own = responses[:, responses["roi"] == "RHLOC"]
    np.testing.assert_allclose(own, np.mean(files, axis=0))
    assert set(responses["subject"].to_numpy()) == {"CSI2"}


def test_one_volume_is_taken_alone(truth):
    responses = open_bold5000(truth.root / "ROIs", 1, volumes=("TR34",), rois=["LHRSC"])
    np.testing.assert_allclose(responses, matrix(truth, "CSI1", "TR34", "LHRSC"))
    assert responses.attrs["volumes"] == "TR34"
    peak = open_bold5000(truth.root, 1, volumes=["TR3"], rois=["LHRSC"])
    gain = (VOLUME_GAINS["TR3"] + VOLUME_GAINS["TR4"]) / 2
    np.testing.assert_allclose(responses, gain * peak.to_numpy())


def test_regions_keep_their_order_and_voxels_their_names(truth):
    responses = open_bold5000(truth.root, 1)
    assert list(dict.fromkeys(responses["roi"].to_numpy())) == list(ROIS)
    assert len(ROIS) == 10
    assert responses["target"].to_numpy()[:2].tolist() == ["LHPPA-0001", "LHPPA-0002"]
    assert len(set(responses["target"].to_numpy())) == responses.sizes["target"]
    assert set(responses["hemi"].to_numpy()) == {"L", "R"}
    some = open_bold5000(truth.root, 1, rois=["RHOPA", "LHPPA"])
    assert list(dict.fromkeys(some["roi"].to_numpy())) == ["RHOPA", "LHPPA"]


def test_repeats_are_kept_and_counted_under_one_name(truth):
    responses = open_bold5000(truth.root, 1)
    names = responses["stimulus"].to_numpy()
    assert names.tolist() == truth.shown["CSI1"]
    counts = np.unique(names, return_counts=True)[1]
    assert sorted(counts) == [1] * 52 + [4] * 8
    repeated = names == truth.features.index[0]
    assert responses["presentation"].to_numpy()[repeated].tolist() == [0, 1, 2, 3]
    assert set(responses["source"].to_numpy()) == {"COCO", "ImageNet", "Scenes"}
    # 84 rows, 37 a run, 10 s apart.
    assert responses["run"].to_numpy()[[0, 36, 37, 83]].tolist() == [
        "001", "001", "002", "003",
    ]  # fmt: skip
    assert responses["onset"].to_numpy()[[0, 36, 37]].tolist() == [0.0, 360.0, 0.0]


def test_repeats_give_the_planted_ceiling(tmp_path):
    truth = make_bold5000(tmp_path, subjects=("CSI1",), n_pictures=300, n_repeated=300)
    responses = open_bold5000(truth.root, 1, volumes=["TR3"])
    names = responses["stimulus"].to_numpy()
    order = np.lexsort([names, responses["presentation"].to_numpy()])
    repeats = responses.to_numpy()[order].reshape(4, 300, -1)
    ceiling = noise_ceiling(repeats)
    roi = responses["roi"].to_numpy()
    for name, snr in (("EarlyVis", 1.5), ("PPA", 1.0)):
        own = np.isin(roi, [f"LH{name}", f"RH{name}"])
        # Signal of variance snr^2, noise of variance 1, four repeats.
        expected = np.sqrt(snr**2 / (snr**2 + 1 / 4))
        assert ceiling[own].mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.filterwarnings("ignore:.*chose the largest alpha")
def test_planted_features_tell_pictures_apart_where_there_is_signal(truth):
    responses = open_bold5000(truth.root, 1)
    names = responses["stimulus"].to_numpy()
    features = feature_matrix(
        truth.features.loc[names].to_numpy(),
        onset=responses["onset"].to_numpy(),
        run=list(responses["run"].to_numpy()),
        subject="CSI1",
    )
    features, responses = pair_samples(features, responses)
    x, y = features.to_numpy(), responses.to_numpy()
    # A picture is never in both parts: repeats would give its noise-free self away.
    held_out = np.isin(names, truth.features.index[::2])
    model = RidgeCV(alphas=np.geomspace(0.1, 1e4, 6), cv=4).fit(
        x[~held_out], y[~held_out]
    )
    table = roi_scores(responses[held_out], model.predict(x[held_out])).set_index("roi")
    assert (table.loc[["LHEarlyVis", "RHEarlyVis"], "two_v_two"] > 0.85).all()
    assert (table.loc[["LHRSC", "RHRSC"], "two_v_two"] < 0.7).all()
    assert (table.loc[["LHEarlyVis", "RHEarlyVis"], "voxel_r"] > 0.6).all()
    assert (table.loc[["LHRSC", "RHRSC"], "voxel_r"].abs() < 0.3).all()


def test_missing_files_are_named(own):
    with pytest.raises(InputMissingError, match=r"CSI02_stim_lists.txt: no such file"):
        open_bold5000(own.root, 2)
    (own.root / "ROIs/CSI1/mat/CSI1_ROIs_TR4.mat").unlink()
    with pytest.raises(InputMissingError, match=r"CSI1_ROIs_TR4.mat: no such file"):
        open_bold5000(own.root, 1)
    assert open_bold5000(own.root, 1, volumes=["TR3"]).sizes["sample"] == 18
    with pytest.raises(InputMissingError, match="has no folder stim_lists"):
        open_bold5000(own.root / "ROIs/CSI1", 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_a_cut_file_gives_one_error_that_names_it(own, share):
    path = own.root / "ROIs/CSI1/mat/CSI1_ROIs_TR2.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"CSI1_ROIs_TR2.mat: "):
        open_bold5000(own.root, 1)


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_give_responses_or_one_error(own, seed):
    path = own.root / "ROIs/CSI1/mat/CSI1_ROIs_TR2.mat"
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for position in rng.integers(0, len(content), 5):
        content[position] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    try:
        outcome = open_bold5000(own.root, 1).sizes["sample"]
    except DataError as error:
        outcome = error
    assert outcome == 18 or "CSI1_ROIs_TR2.mat" in str(outcome)


def test_files_that_contradict_one_another_are_refused(own):
    folder = own.root / "ROIs/CSI1/mat"
    whole = {
        k: v for k, v in loadmat(folder / "CSI1_ROIs_TR2.mat").items() if k in ROIS
    }
    savemat(folder / "CSI1_ROIs_TR2.mat", whole | {"LHOPA": whole["LHOPA"][:, 1:]})
    with pytest.raises(DataError, match=r"LHOPA has \d voxels in the file of TR2"):
        open_bold5000(own.root, 1)
    savemat(folder / "CSI1_ROIs_TR2.mat", whole | {"LHOPA": whole["LHOPA"][1:]})
    with pytest.raises(DataError, match="LHOPA has 17 rows for 18 pictures"):
        open_bold5000(own.root, 1)
    del whole["LHOPA"]
    savemat(folder / "CSI1_ROIs_TR2.mat", whole)
    with pytest.raises(DataError, match=r"has no variable LHOPA \(found: LHPPA"):
        open_bold5000(own.root, 1)


def test_what_is_not_in_the_release_is_refused_with_what_is(own):
    with pytest.raises(UsageError, match=r"one of TR1, .*, TR34, once; got TR6"):
        open_bold5000(own.root, 1, volumes=["TR6"])
    with pytest.raises(UsageError, match="each region must be one of LHPPA"):
        open_bold5000(own.root, 1, rois=["FFA"])
    with pytest.raises(UsageError, match="expected a subject like CSI1"):
        open_bold5000(own.root, "M01")
