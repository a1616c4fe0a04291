"""Pereira et al.: networks, concepts, and planted responses found again."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.encoding import RidgeCV
from neuromm.encoding.pairwise_accuracy import roi_scores
from neuromm.io.pereira import NETWORKS, open_pereira
from neuromm.simulate.image_datasets import make_pereira


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A data set that no test may change."""
    return make_pereira(tmp_path_factory.mktemp("pereira"), n_concepts=90)


@pytest.fixture
def own(tmp_path):
    """A data set of the test's own."""
    return make_pereira(tmp_path, subjects=("P01",), n_concepts=12)


def file_of(truth, subject="P01"):
    return truth.root / subject / "data_180concepts_pictures.mat"


def rewritten(path, change):
    content = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    savemat(path, change(content))


def test_columns_of_each_network_are_those_of_the_file(truth):
    responses = open_pereira(truth.root, "P01")
    examples = loadmat(file_of(truth))["examples"]
    columns = responses["column"].to_numpy()
    np.testing.assert_array_equal(responses, examples[:, columns])
    networks = list(dict.fromkeys(responses["roi"].to_numpy()))
    assert networks == [n for n in NETWORKS if n in {"languageLH", "languageRH",
                        "visual_scene", "visual", "DMN"}]  # fmt: skip
    # Two regions of five voxels; in "visual" they share two, which count once.
    counts = [(responses["roi"].to_numpy() == name).sum() for name in networks]
    assert counts == [10] * 5
    assert list(dict.fromkeys(responses["region"].to_numpy()))[:2] == [
        "languageLH_a",
        "languageLH_b",
    ]
    assert responses["target"].to_numpy()[0] == f"languageLH-{columns[0] + 1:06d}"


def test_concepts_name_the_rows_and_bring_their_concreteness(truth):
    responses = open_pereira(truth.root, "M01")
    assert responses["stimulus"].to_numpy().tolist() == list(truth.features.index)
    rating = loadmat(file_of(truth, "M01"))["labelsConcreteness"].ravel()
    np.testing.assert_array_equal(responses["concreteness"], rating)
    assert len(set(responses["onset"].to_numpy())) == 90


def test_voxels_keep_their_place_in_the_image(truth):
    responses = open_pereira(truth.root, "P01")
    column = responses["column"].to_numpy()
    np.testing.assert_array_equal(responses["i"], column % 9)
    np.testing.assert_array_equal(responses["j"], column // 9 % 9)


@pytest.mark.filterwarnings("ignore:.*chose the largest alpha")
def test_planted_features_tell_concepts_apart_where_there_is_signal(truth):
    responses = open_pereira(truth.root, "P01")
    x, y = truth.features.to_numpy(), responses.to_numpy()
    half = np.arange(90) < 60
    model = RidgeCV(alphas=np.geomspace(0.1, 1e4, 6), cv=4).fit(x[half], y[half])
    table = roi_scores(responses[~half], model.predict(x[~half])).set_index("roi")
    assert table.loc["visual_scene", "two_v_two"] > 0.9
    assert table.loc["visual_scene", "voxel_r"] > 0.6
    assert table.loc["DMN", "two_v_two"] < 0.7
    assert abs(table.loc["DMN", "voxel_r"]) < 0.25


def test_networks_may_be_chosen_and_an_unknown_one_is_answered(truth):
    some = open_pereira(truth.root, "P01", networks=["visual", "languageLH"])
    assert list(dict.fromkeys(some["roi"].to_numpy())) == ["visual", "languageLH"]
    with pytest.raises(UsageError, match=r"no network FFA \(found: languageLH, lang"):
        open_pereira(truth.root, "P01", networks=["FFA"])
    with pytest.raises(UsageError, match="unknown paradigm 'videos'"):
        open_pereira(truth.root, "P01", "videos")


def test_missing_participants_and_paradigms_are_named(own):
    with pytest.raises(InputMissingError, match=r"no participant 'M09' \(found: P01\)"):
        open_pereira(own.root, "M09")
    with pytest.raises(InputMissingError, match=r"sentences.mat: .* archive P01"):
        open_pereira(own.root, "P01", "sentences")
    file_of(own).rename(own.root / "P01/examples_180concepts_pictures.mat")
    assert open_pereira(own.root, "P01").sizes["sample"] == 12


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_a_cut_file_gives_one_error_that_names_it(own, share):
    path = file_of(own)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"data_180concepts_pictures.mat: "):
        open_pereira(own.root, "P01")


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_give_responses_or_one_error(own, seed):
    path = file_of(own)
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for position in rng.integers(0, len(content), 5):
        content[position] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    try:
        outcome = open_pereira(own.root, "P01").sizes["sample"]
    except DataError as error:
        outcome = error
    assert outcome == 12 or "data_180concepts_pictures.mat" in str(outcome)


def test_a_file_of_version_7_3_is_answered_with_a_cure(own):
    import h5py

    path = file_of(own)
    path.unlink()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["examples"] = np.zeros((3, 3))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with open(path, "r+b") as raw:
        raw.write(header)
    with pytest.raises(DataError, match=r"version 7.3; .* Save it with -v7"):
        open_pereira(own.root, "P01")


def test_files_that_contradict_themselves_are_refused(own):
    path = file_of(own)
    rewritten(path, lambda c: c | {"keyConcept": c["keyConcept"][:-1]})
    with pytest.raises(DataError, match="keyConcept names 11 concepts for 12 rows"):
        open_pereira(own.root, "P01")
    rewritten(path, lambda c: c | {"examples": c["examples"][:11, :40]})
    with pytest.raises(DataError, match=r"columns of \w+ run from \d+ to \d+"):
        open_pereira(own.root, "P01")
    rewritten(path, lambda c: c | {"meta": np.zeros(3)})
    with pytest.raises(DataError, match=r"meta must be a structure .*no structure"):
        open_pereira(own.root, "P01")
    rewritten(path, lambda c: {k: v for k, v in c.items() if k != "examples"})
    with pytest.raises(DataError, match=r"has no variable examples \(found: keyC"):
        open_pereira(own.root, "P01")
