"""Positions of electrodes: their unit, their frame, and that they fit a head."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import DataError, InputMissingError
from neuromm.io.electrodes import read_coordsystem, read_electrodes

POSITIONS_MM = np.array([[-38.0, -20.0, -8.0], [-45.0, -20.0, -8.0], [60.0, 5.0, 12.0]])
NAMES = ["LT1", "LT2", "RG1"]


def write_table(folder, positions, name="sub-01_electrodes.tsv", names=NAMES):
    rows = [
        f"{label}\t" + "\t".join("n/a" if np.isnan(v) else repr(float(v)) for v in row)
        for label, row in zip(names, positions, strict=True)
    ]
    path = folder / name
    path.write_text("\n".join(["name\tx\ty\tz", *rows]) + "\n")
    return path


def write_system(folder, frame="ACPC", units="mm", name="sub-01_coordsystem.json"):
    content = {"iEEGCoordinateSystem": frame, "iEEGCoordinateUnits": units}
    path = folder / name
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


@pytest.mark.parametrize(("units", "factor"), [("m", 1e-3), ("cm", 0.1), ("mm", 1.0)])
def test_positions_are_the_same_millimetres_whatever_their_unit(
    tmp_path, units, factor
):
    table = write_table(tmp_path, POSITIONS_MM * factor)
    write_system(tmp_path, units=units)
    electrodes = read_electrodes(table)
    np.testing.assert_allclose(electrodes[["x", "y", "z"]], POSITIONS_MM, rtol=1e-12)
    assert list(electrodes["name"]) == NAMES
    assert electrodes.attrs == {"frame": "ACPC", "source_units": units}


def test_millimetres_declared_as_metres_are_refused(tmp_path):
    table = write_table(tmp_path, POSITIONS_MM)
    write_system(tmp_path, units="m")
    with pytest.raises(DataError, match=r"60000 mm and fits no head.* look like mm:"):
        read_electrodes(table)


def test_metres_declared_as_millimetres_are_refused(tmp_path):
    table = write_table(tmp_path, POSITIONS_MM / 1000)
    write_system(tmp_path, units="mm")
    with pytest.raises(DataError, match=r"fits no head.* look like m:"):
        read_electrodes(table)


@given(
    radius=st.floats(30, 120),
    wrong=st.sampled_from(
        [("m", "mm"), ("m", "cm"), ("cm", "m"), ("mm", "m"), ("mm", "cm")]
    ),
)
def test_a_head_in_the_wrong_unit_never_passes(tmp_path_factory, radius, wrong):
    # Centimetres declared as millimetres are not among them: they could be a small
    # implant near the commissure.
    true, declared = wrong
    folder = tmp_path_factory.mktemp("electrodes")
    scale = {"m": 1e-3, "cm": 0.1, "mm": 1.0}[true]
    positions = radius * scale * np.eye(3)
    table = write_table(folder, positions)
    write_system(folder, units=declared)
    with pytest.raises(DataError, match="fits no head"):
        read_electrodes(table)


def test_without_a_coordsystem_the_unit_is_an_error_and_not_a_guess(tmp_path):
    table = write_table(tmp_path, POSITIONS_MM)
    with pytest.raises(DataError, match=r"unknown. Write sub-01_coordsystem.json"):
        read_electrodes(table)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, "got nothing"),
        ("inch", "got 'inch'"),
        ("n/a", "is n/a in sub-01_coordsystem.json"),
    ],
)
def test_a_missing_or_unknown_unit_is_refused(tmp_path, units, message):
    table = write_table(tmp_path, POSITIONS_MM)
    write_system(tmp_path, units=units)
    with pytest.raises(DataError, match=message):
        read_electrodes(table)


@pytest.mark.parametrize(
    ("declared", "frame"),
    [
        ("MNI152NLin2009aSym", "MNI152NLin2009aSym"),
        ("mni152nlin2009casym", "MNI152NLin2009cAsym"),
        ("fsaverage5", "fsaverage"),
        ("acpc", "ACPC"),
        ("Other", None),
    ],
)
def test_frames_have_their_bids_name(tmp_path, declared, frame):
    assert read_coordsystem(write_system(tmp_path, frame=declared)).frame == frame


def test_a_frame_that_bids_does_not_know_is_no_frame_and_said_so(tmp_path):
    path = write_system(tmp_path, frame="MNI152")
    with pytest.warns(UserWarning, match=r"'MNI152' is none of BIDS.*MNI152Lin"):
        assert read_coordsystem(path).frame is None


def test_pixels_of_a_photograph_have_no_place_in_millimetres(tmp_path):
    positions = np.array([[120.0, 400.0, np.nan], [130.0, 410.0, np.nan]])
    table = write_table(tmp_path, positions, names=["A1", "A2"])
    write_system(tmp_path, frame="Pixels", units="pixels")
    with pytest.warns(UserWarning, match="pixels of a picture"):
        electrodes = read_electrodes(table)
    assert electrodes[["x", "y", "z"]].isna().all(axis=None)
    assert electrodes.attrs["frame"] is None


def test_each_space_takes_the_coordsystem_of_its_own_space(tmp_path):
    mni = write_table(
        tmp_path, POSITIONS_MM, name="sub-01_space-MNI152NLin6ASym_electrodes.tsv"
    )
    own = write_table(
        tmp_path, POSITIONS_MM / 1000, name="sub-01_space-ACPC_electrodes.tsv"
    )
    write_system(
        tmp_path,
        frame="MNI152NLin6ASym",
        name="sub-01_space-MNI152NLin6ASym_coordsystem.json",
    )
    write_system(
        tmp_path, frame="ACPC", units="m", name="sub-01_space-ACPC_coordsystem.json"
    )
    assert read_electrodes(mni).attrs["frame"] == "MNI152NLin6ASym"
    electrodes = read_electrodes(own)
    assert electrodes.attrs["frame"] == "ACPC"
    np.testing.assert_allclose(electrodes[["x", "y", "z"]], POSITIONS_MM, rtol=1e-12)


def test_a_coordsystem_is_inherited_from_the_root_of_the_data_set(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    folder = tmp_path / "sub-01" / "ieeg"
    folder.mkdir(parents=True)
    table = write_table(folder, POSITIONS_MM)
    write_system(tmp_path, frame="ScanRAS", name="coordsystem.json")
    assert read_electrodes(table).attrs["frame"] == "ScanRAS"


def test_a_space_that_contradicts_its_json_is_refused(tmp_path):
    name = "sub-01_space-MNI152NLin6ASym_electrodes.tsv"
    table = write_table(tmp_path, POSITIONS_MM, name=name)
    system = write_system(tmp_path, frame="ACPC")
    with pytest.raises(DataError, match=r"space-MNI152NLin6ASym, but .* says ACPC"):
        read_electrodes(table, system)


def test_contacts_without_a_position_are_kept_and_counted(tmp_path):
    positions = POSITIONS_MM.copy()
    positions[1] = np.nan
    table = write_table(tmp_path, positions)
    write_system(tmp_path)
    with pytest.warns(UserWarning, match="1 of 3 electrodes have no position"):
        electrodes = read_electrodes(table)
    np.testing.assert_array_equal(
        electrodes["x"].isna().to_numpy(), [False, True, False]
    )


def test_contacts_at_one_place_are_counted(tmp_path):
    table = write_table(tmp_path, POSITIONS_MM[[0, 0, 1]])
    write_system(tmp_path)
    with pytest.warns(UserWarning, match="1 electrodes have the position of another"):
        read_electrodes(table)


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    table = write_table(tmp_path, POSITIONS_MM, names=["A1", "A1", "A2"])
    write_system(tmp_path)
    with pytest.raises(DataError, match="more than once, such as A1"):
        read_electrodes(table)


def test_a_table_without_coordinates_is_refused(tmp_path):
    path = tmp_path / "sub-01_electrodes.tsv"
    path.write_text("name,x,y,z\nA1,1,2,3\n")
    with pytest.raises(DataError, match="separated by tabs"):
        read_electrodes(path)


def test_a_decimal_comma_is_refused_by_name(tmp_path):
    path = tmp_path / "sub-01_electrodes.tsv"
    path.write_text("name\tx\ty\tz\nA1\t1,5\t2\t3\n")
    write_system(tmp_path)
    with pytest.raises(DataError, match="Is the decimal sign a point"):
        read_electrodes(path)


def test_a_table_that_is_not_there_is_missing_input(tmp_path):
    with pytest.raises(InputMissingError, match=r"electrodes.tsv"):
        read_electrodes(tmp_path / "sub-01_electrodes.tsv")


def test_groups_are_kept(tmp_path):
    path = tmp_path / "sub-01_electrodes.tsv"
    path.write_text("name\tx\ty\tz\tgroup\nA1\t30\t2\t3\tA\nB1\t-30\t2\t3\tB\n")
    write_system(tmp_path)
    assert list(read_electrodes(path)["group"]) == ["A", "B"]
