"""DICOM series come back as the volume that was scanned, wherever its files lie."""

import warnings

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from neuromm.core import DataError, InputMissingError, NeurommError, Sample, UsageError
from neuromm.io import mri

SHAPE = (7, 6, 5)  # columns, rows, slices
SPACING = np.array([0.9, 1.3, 3.7])  # mm
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# 16 characters of a decimal string leave 1e-11 mm; a NIfTI header holds 32-bit floats,
# which are good to 1e-5 mm at 100 mm.
TOLERANCE_MM = 1e-4


@pytest.fixture
def phantom():
    """Every voxel has a number of its own; the grid is oblique to all axes."""
    rng = np.random.default_rng(3)
    values = rng.permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)
    directions, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING
    affine[:3, 3] = -71.3, 42.8, -13.6
    return nibabel.Nifti1Image(values, affine)


def decimals(numbers):
    return [pydicom.valuerep.format_number_as_ds(float(n)) for n in numbers]


def header(series="1.2.3"):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
    data.SeriesInstanceUID, data.SeriesNumber = series, 4
    data.SeriesDescription = "t2_sag"
    data.PatientName, data.PatientID, data.StudyDate = "Doe^J", "77", "20200101"
    data.Modality, data.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
    data.EchoTime, data.RepetitionTime = "90", "3000"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    return data


def plane(image, k):
    """Position, orientation and spacing of slice k, in the words of DICOM."""
    lps = LPS_TO_RAS @ image.affine
    unit = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    position = lps @ [0, 0, k, 1]
    place, turn = Dataset(), Dataset()
    place.ImagePositionPatient = decimals(position[:3])
    turn.ImageOrientationPatient = decimals([*unit[:, 0], *unit[:, 1]])
    measures = Dataset()
    measures.PixelSpacing = decimals([SPACING[1], SPACING[0]])
    measures.SliceThickness = "3"
    return place, turn, measures


def write_series(folder, image, *, change=None, keep=None, series="1.2.3"):
    """One file a slice, names and instance numbers in a random order."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.asarray(image.dataobj)
    names = np.random.default_rng(1).permutation(values.shape[2])
    paths = {}
    for k in range(values.shape[2]) if keep is None else keep:
        data = header(series)
        for part in plane(image, k):
            data.update(part)
        data.InstanceNumber = int(names[k]) + 1
        data.Rows, data.Columns = values.shape[1], values.shape[0]
        data.PixelData = np.ascontiguousarray(values[:, :, k].T).tobytes()
        if change is not None:
            change(data, k)
        paths[k] = folder / f"IM{names[k]:04d}"
        data.save_as(paths[k], enforce_file_format=True)
    return paths


def write_enhanced(path, image, *, order):
    values = np.asarray(image.dataobj)
    data = header()
    _, turn, measures = plane(image, 0)
    shared = Dataset()
    shared.PlaneOrientationSequence = [turn]
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k in order:
        rescale = Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = str(k + 1), "-5"
        group = Dataset()
        group.PlanePositionSequence = [plane(image, k)[0]]
        group.PixelValueTransformationSequence = [rescale]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    data.NumberOfFrames = len(order)
    data.Rows, data.Columns = values.shape[1], values.shape[0]
    stack = np.stack([values[:, :, k].T for k in order])
    data.PixelData = np.ascontiguousarray(stack).tobytes()
    data.save_as(path, enforce_file_format=True)


def assert_same_places(found, truth):
    """Each voxel, known by its number, lies where it was put (RAS, mm)."""

    def places(image):
        values = np.asanyarray(image.dataobj).ravel()
        indices = np.indices(image.shape).reshape(3, -1)
        world = image.affine[:3, :3] @ indices + image.affine[:3, 3:]
        return world[:, np.argsort(values)], np.sort(values)

    (world, values), (expected, numbers) = places(found), places(truth)
    np.testing.assert_array_equal(values, numbers)
    np.testing.assert_allclose(world, expected, atol=TOLERANCE_MM)


@pytest.mark.parametrize("flip", [1, -1])
def test_shuffled_oblique_slices_and_nifti_place_the_phantom_alike(
    phantom, tmp_path, flip
):
    affine = phantom.affine @ np.diag([1, 1, flip, 1])  # slices up, or down
    phantom = nibabel.Nifti1Image(np.asarray(phantom.dataobj), affine)
    write_series(tmp_path / "series", phantom)
    phantom.header.set_xyzt_units("mm")
    phantom.to_filename(tmp_path / "phantom.nii.gz")
    assert_same_places(mri.load(tmp_path / "series").data, phantom)
    assert_same_places(mri.load(tmp_path / "phantom.nii.gz").data, phantom)


def test_every_slice_lies_where_nibabel_places_it(phantom, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls this part experimental
        from nibabel.nicom import dicomwrappers

    paths = write_series(tmp_path, phantom)
    found = mri.load(tmp_path).data
    values = np.asarray(found.dataobj)
    for path in paths.values():
        peer = dicomwrappers.wrapper_from_file(path)  # rows, columns; LPS
        pixels = np.asarray(peer.get_data())
        for row, column in [(0, 0), (2, 5), (5, 1)]:
            (at,) = np.argwhere(values == pixels[row, column])
            np.testing.assert_allclose(
                found.affine @ [*at, 1],
                LPS_TO_RAS @ peer.affine @ [row, column, 0, 1],
                atol=TOLERANCE_MM,
            )


def test_one_file_stands_for_its_series(phantom, tmp_path):
    paths = write_series(tmp_path, phantom)
    (tmp_path / "notes.txt").write_text("no image")
    assert_same_places(mri.load(paths[2]).data, phantom)


def test_frames_of_an_enhanced_file_are_ordered_and_scaled_each(phantom, tmp_path):
    write_enhanced(tmp_path / "enhanced.dcm", phantom, order=[3, 0, 4, 2, 1])
    scale = np.arange(1, SHAPE[2] + 1)
    found = mri.load(tmp_path / "enhanced.dcm").data
    values = np.asarray(found.dataobj)
    if found.affine[:3, 2] @ phantom.affine[:3, 2] < 0:  # the other end came first
        values = values[:, :, ::-1]
    np.testing.assert_array_equal(values, np.asarray(phantom.dataobj) * scale - 5)
    corners = {tuple(np.round(c, 3)) for c in ends(found)}
    assert corners == {tuple(np.round(c, 3)) for c in ends(phantom)}


def ends(image):
    last = image.shape[2] - 1
    return [(image.affine @ [0, 0, k, 1])[:3] for k in (0, last)]


def test_compressed_pixels_are_the_same_pixels(phantom, tmp_path):
    def compress(data, k):
        data.compress(RLELossless)

    write_series(tmp_path, phantom, change=compress)
    assert_same_places(mri.load(tmp_path).data, phantom)


def test_monochrome1_is_inverted_within_its_stored_bits(phantom, tmp_path):
    def invert(data, k):
        data.PhotometricInterpretation = "MONOCHROME1"

    values = np.asarray(phantom.dataobj)
    shown = nibabel.Nifti1Image((4095 - values).astype(np.uint16), phantom.affine)
    write_series(tmp_path, shown, change=invert)
    sample = mri.load(tmp_path)
    assert_same_places(sample.data, phantom)
    assert "MONOCHROME1" in sample.metadata["Inverted"]


def test_slope_and_intercept_of_each_slice_apply(phantom, tmp_path):
    def rescale(data, k):
        data.RescaleSlope, data.RescaleIntercept = "0.5", str(-1024 + 100 * k)

    write_series(tmp_path, phantom, change=rescale)
    found = np.sort(np.asarray(mri.load(tmp_path).data.dataobj).ravel())
    values = np.asarray(phantom.dataobj) * 0.5 + np.arange(SHAPE[2]) * 100 - 1024
    np.testing.assert_array_equal(found, np.sort(values.ravel()))


def test_scaled_integers_do_not_overflow_their_type(phantom, tmp_path):
    def rescale(data, k):
        data.RescaleSlope = "1000"

    write_series(tmp_path, phantom, change=rescale)
    largest = np.asarray(mri.load(tmp_path).data.dataobj).max()
    assert largest == 1000.0 * (np.prod(SHAPE) - 1)


def test_wide_integers_are_held_to_one_part_in_a_million(phantom, tmp_path):
    def widen(data, k):
        data.BitsAllocated, data.BitsStored, data.HighBit = 32, 32, 31

    values = np.asarray(phantom.dataobj).astype(np.uint32) + 2**30
    truth = nibabel.Nifti1Image(values.astype(np.float64), phantom.affine)
    wide = nibabel.Nifti1Image(values, phantom.affine)
    write_series(tmp_path, wide, change=widen)
    found = mri.load(tmp_path).data
    # 32-bit floats step by 64 here: closer than one part in a million.
    assert found.get_data_dtype() == np.float32
    np.testing.assert_allclose(
        np.sort(found.get_fdata().ravel()), np.sort(truth.get_fdata().ravel()), 1e-6
    )


def test_signed_pixels_keep_their_sign_and_overlay_bits_do_not_count(phantom, tmp_path):
    values = np.asarray(phantom.dataobj).astype(np.int16) - 100
    stored = (values.astype(np.int64) & 0x0FFF | 0x4000).astype(np.uint16)

    def signed(data, k):
        data.PixelRepresentation = 1

    truth = nibabel.Nifti1Image(values, phantom.affine)
    write_series(tmp_path, nibabel.Nifti1Image(stored, phantom.affine), change=signed)
    assert_same_places(mri.load(tmp_path).data, truth)


def test_metadata_has_seconds_and_nobody_s_name(phantom, tmp_path):
    write_series(tmp_path, phantom)
    metadata = mri.load(tmp_path).metadata
    assert metadata["EchoTime"] == 0.09
    assert metadata["RepetitionTime"] == 3
    text = str(metadata)
    assert not any(secret in text for secret in ("Doe", "77", "2020"))


def test_a_missing_slice_is_named_by_its_neighbours(phantom, tmp_path):
    paths = write_series(tmp_path, phantom, keep=[0, 1, 3, 4])
    with pytest.raises(DataError, match="1 of its slices are missing") as caught:
        mri.load(tmp_path)
    assert paths[1].name in str(caught.value)
    assert paths[3].name in str(caught.value)


def moved(k_moved, mm, along):
    def change(data, k):
        if k == k_moved:
            position = np.array(data.ImagePositionPatient, dtype=float)
            directions = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
            step = np.cross(*directions) if along == "normal" else directions[0]
            data.ImagePositionPatient = decimals(position + mm * step)

    return change


def test_uneven_gaps_are_refused(phantom, tmp_path):
    paths = write_series(tmp_path, phantom, change=moved(2, 0.4, "normal"))
    with pytest.raises(DataError, match=r"gaps are uneven.*3\.7 mm") as caught:
        mri.load(tmp_path)
    assert paths[2].name in str(caught.value)


def test_a_slice_aside_is_refused(phantom, tmp_path):
    paths = write_series(tmp_path, phantom, change=moved(2, 0.4, "plane"))
    with pytest.raises(DataError, match=rf"{paths[2].name} lies 0\.4 mm beside"):
        mri.load(tmp_path)


def test_a_tilted_stack_is_placed_by_its_positions(phantom, tmp_path):
    tilt = np.eye(4)
    tilt[0, 2] = 0.4  # each slice is shifted along its columns
    tilted = nibabel.Nifti1Image(np.asarray(phantom.dataobj), phantom.affine @ tilt)
    write_series(tmp_path, tilted)
    assert_same_places(mri.load(tmp_path).data, tilted)


def test_a_doubled_slice_is_named(phantom, tmp_path):
    paths = write_series(tmp_path, phantom)
    copy = tmp_path / "copy"
    copy.write_bytes(paths[3].read_bytes())
    with pytest.raises(DataError, match="slices are there twice") as caught:
        mri.load(tmp_path)
    assert {"copy", paths[3].name} <= set(str(caught.value).replace(":", "").split())


def test_dixon_images_of_one_series_are_chosen_by_their_type(phantom, tmp_path):
    def kind(word):
        def change(data, k):
            data.ImageType = ["DERIVED", "PRIMARY", word]

        return change

    other = nibabel.Nifti1Image(np.asarray(phantom.dataobj) + 7, phantom.affine)
    write_series(tmp_path / "a", phantom, change=kind("WATER"))
    write_series(tmp_path / "b", other, change=kind("FAT"))
    with pytest.raises(UsageError, match=r"differ in ImageType.*'FAT'.*select="):
        mri.load(tmp_path)
    water = mri.load(tmp_path, select={"ImageType": "WATER"})
    assert_same_places(water.data, phantom)
    with pytest.raises(UsageError, match=r"no image has ImageType='OUT'.*WATER"):
        mri.load(tmp_path, select={"ImageType": "OUT"})


def test_several_series_are_listed_with_how_to_choose(phantom, tmp_path):
    def second(data, k):
        data.SeriesNumber, data.SeriesDescription = 9, "t1_sag"

    other = nibabel.Nifti1Image(np.asarray(phantom.dataobj) + 7, phantom.affine)
    write_series(tmp_path / "a", phantom)
    write_series(tmp_path / "b", other, change=second, series="1.2.4")
    with pytest.raises(UsageError, match=r"2 series.*series=4") as caught:
        mri.load(tmp_path)
    assert "9: t1_sag (MR, 5 images) 1.2.4" in str(caught.value)
    for choice in (9, "t1_sag", "1.2.4"):
        assert_same_places(mri.load(tmp_path, series=choice).data, other)
    with pytest.raises(UsageError, match="no series 5"):
        mri.load(tmp_path, series=5)


def test_planes_of_a_localizer_are_no_volume(phantom, tmp_path):
    def turn(data, k):
        if k == 4:
            data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]

    write_series(tmp_path, phantom, change=turn)
    with pytest.raises(DataError, match="localizer"):
        mri.load(tmp_path)


def attribute(name, value):
    def change(data, k):
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)

    return change


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ImagePositionPatient", None, "does not state where it lies"),
        ("PixelSpacing", ["0", "1"], "cannot be"),
        ("ImageOrientationPatient", list("110010"), "right angle"),
        ("PhotometricInterpretation", "RGB", "colour"),
        ("Modality", "US", "expected an image of MR, CT, PT"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "MOSAIC"], "mosaic"),
        ("NumberOfFrames", 3, "without functional groups"),
        ("Rows", 60_000, r"header states 840,000 bytes of pixels, the file holds 84"),
        ("BitsStored", 17, "cannot be read .*'Bits Stored' value of '17'"),
        ("SeriesInstanceUID", None, "damaged DICOM|lacks"),
    ],
)
def test_a_file_that_is_no_slice_is_refused_with_the_reason(
    phantom, tmp_path, name, value, message
):
    path = write_series(tmp_path, phantom, change=attribute(name, value), keep=[0])[0]
    with pytest.raises(DataError, match=message):
        mri.load(path)


def test_a_folder_without_images_says_so(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(InputMissingError, match="no DICOM image"):
        mri.load(tmp_path)


def test_a_lone_slice_without_thickness_has_no_volume(phantom, tmp_path):
    write_series(tmp_path, phantom, change=attribute("SliceThickness", None), keep=[0])
    with pytest.raises(DataError, match="states no thickness"):
        mri.load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.95, 1.0])
def test_a_cut_slice_gives_one_error(phantom, tmp_path, share):
    path = write_series(tmp_path, phantom)[1]
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(NeurommError):
            mri.load(path)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_give_a_sample_or_one_error(phantom, tmp_path, seed):
    path = write_series(tmp_path, phantom)[0]
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for position in rng.integers(132, len(content), size=6):
        content[position] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outcome = mri.load(path.parent)
        except NeurommError as error:
            outcome = error
    assert isinstance(outcome, Sample | NeurommError)
