"""fMRI files: read lazily, with one repetition time, and refused when not whole."""

import base64
import gzip
import json
import time
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.gifti import GiftiDataArray, GiftiImage

from neuromm.core import DataError, InputMissingError, NeurommError, Sample
from neuromm.io import fmri
from neuromm.io.surfaces import surface_shape

FUNC = Path("sub-01/func")


@pytest.fixture
def bold(tmp_path):
    return fmri.write_example(tmp_path)


@pytest.fixture
def surface_pair(tmp_path):
    left = tmp_path / "sub-01_task-film_hemi-L_space-fsaverage5_bold.func.gii"
    write_surface(left, n_volumes=6, value=1.0)
    write_surface(right_of(left), n_volumes=6, value=2.0)
    return left


def right_of(left):
    return left.with_name(left.name.replace("hemi-L", "hemi-R"))


def write_surface(path, *, n_volumes, value=0.0, n_vertices=12):
    rng = np.random.default_rng(0)
    arrays = [
        GiftiDataArray(
            (value + rng.standard_normal(n_vertices)).astype(np.float32),
            intent="NIFTI_INTENT_TIME_SERIES",
        )
        for _ in range(n_volumes)
    ]
    nibabel.save(GiftiImage(darrays=arrays), path)


def write_volume(path, shape=(3, 4, 5, 6), *, values=None, zooms=None, units=None):
    values = np.zeros(shape, np.int16) if values is None else values
    image = nibabel.Nifti1Image(values, np.eye(4))
    if zooms is not None:
        image.header.set_zooms((1, 1, 1, zooms))
    if units is not None:
        image.header.set_xyzt_units("mm", units)
    image.to_filename(path)
    return path


def patched(path, offset, content):
    """Overwrite bytes of the (compressed) file, as a damaged header has them."""
    compressed = path.name.endswith(".gz")
    raw = bytearray(
        gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    )
    raw[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(raw) if compressed else bytes(raw))
    return path


# Volumes


def test_a_run_is_opened_without_reading_its_values(bold):
    sample = fmri.load(bold)
    assert sample.data.shape == (6, 7, 5, 20)
    assert nibabel.is_proxy(sample.data.dataobj)
    assert not sample.data.in_memory
    assert sample.entities == {"subject": "01", "task": "film"}
    assert sample.metadata["RepetitionTime"] == 2.0
    assert sample.source == bold


def test_given_entities_metadata_and_companions_are_kept(bold):
    events = bold.with_name("sub-01_task-film_events.tsv")
    sample = fmri.load(
        bold,
        entities={"subject": "x"},
        metadata={"RepetitionTime": 2},
        companions={"events": events},
    )
    assert sample.entities == {"subject": "x"}
    assert sample.metadata == {"RepetitionTime": 2}
    assert sample.companions == {"events": events}


@pytest.mark.parametrize("name", ["run_bold.nii", "run_bold.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_values_are_those_that_nibabel_wrote(tmp_path, name, kind):
    values = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32)
    kind(values, np.eye(4)).to_filename(tmp_path / name)
    np.testing.assert_array_equal(fmri.load(tmp_path / name).data.get_fdata(), values)


def test_big_endian_files_and_header_extensions_are_read(tmp_path):
    values = np.arange(240, dtype=">i2").reshape(3, 4, 5, 4)
    header = nibabel.Nifti1Header(endianness=">")
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 100))
    path = tmp_path / "run_bold.nii.gz"
    nibabel.Nifti1Image(values, np.eye(4), header).to_filename(path)
    np.testing.assert_array_equal(fmri.load(path).data.get_fdata(), values)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 5), r"4-D series, got 3-D \(shape \(3, 4, 5\)\)"),
        ((3, 4, 5, 1), "at least two volumes, got 1"),
        ((3, 4, 5, 2, 2), "4-D series, got 5-D"),
    ],
)
def test_an_image_that_is_no_series_is_refused(tmp_path, shape, message):
    path = write_volume(tmp_path / "run_bold.nii.gz", shape)
    with pytest.raises(DataError, match=f"run_bold.nii.gz: .*{message}"):
        fmri.load(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("name", ["run_bold.nii", "run_bold.nii.gz"])
def test_a_cut_file_is_called_truncated_and_named(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 3000, (9, 9, 9, 9)).astype(np.int16)
    path = write_volume(tmp_path / name, values=noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"{name}: .*truncated.*copy or download"):
        fmri.load(path)


def test_a_damaged_byte_in_the_compressed_data_is_found_when_opening(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3000, (9, 9, 9, 9)).astype(np.int16)
    path = write_volume(tmp_path / "run_bold.nii.gz", values=noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="copy or download it again"):
        fmri.load(path)


@pytest.mark.parametrize("name", ["run_bold.nii", "run_bold.nii.gz"])
def test_huge_stated_dimensions_are_refused_before_memory_is_taken(tmp_path, name):
    path = write_volume(tmp_path / name)
    dims = np.array([4, 32767, 32767, 32767, 32767], dtype="<i2").tobytes()
    patched(path, 40, dims)
    tracemalloc.start()
    with pytest.raises(DataError, match="truncated"):
        fmri.load(path)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_a_gzip_bomb_is_refused_in_little_time_and_memory(tmp_path):
    path = write_volume(tmp_path / "run_bold.nii.gz")
    raw = gzip.decompress(path.read_bytes())
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(2**20)
    with open(path, "wb") as file:
        file.write(squeeze.compress(raw))
        for _ in range(100):
            file.write(squeeze.compress(megabyte))
        file.write(squeeze.flush())
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DataError, match="holds more data than its header states"):
        fmri.load(path)
    assert time.perf_counter() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [0, -16, -2147483648, 2147483647])
def test_a_lying_header_extension_is_refused(tmp_path, size):
    header = nibabel.Nifti1Header()
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 100))
    path = tmp_path / "run_bold.nii"
    values = np.zeros((3, 4, 5, 6), np.int16)
    nibabel.Nifti1Image(values, np.eye(4), header).to_filename(path)
    patched(path, 352, np.array([size], dtype="<i4").tobytes())
    with pytest.raises(DataError, match="extension"):
        fmri.load(path)


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        (0, b"\0\0\0\0", "not a NIfTI file"),
        (344, b"\0\0\0\0", "not a single-file NIfTI"),
        (40, b"\xff\xff", "header is damaged"),
        (42, b"\0\0", "header is damaged"),
        (70, b"\xff\x7f", "no known data type"),
        (108, np.float32(np.nan).tobytes(), "header is damaged"),
        (108, np.float32(1e30).tobytes(), "header is damaged"),
        (280, np.full(4, np.nan, np.float32).tobytes(), "affine is not finite"),
        (280, np.zeros(12, np.float32).tobytes(), "affine is not finite, or flat"),
    ],
)
def test_each_damaged_field_of_the_header_is_refused(
    tmp_path, offset, content, message
):
    path = patched(write_volume(tmp_path / "run_bold.nii"), offset, content)
    with pytest.raises(DataError, match=f"run_bold.nii: .*{message}"):
        fmri.load(path)


@pytest.mark.parametrize("name", ["run_bold.nii", "run_bold.nii.gz"])
def test_bit_flips_give_a_readable_image_or_a_neuromm_error(tmp_path, name):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 300, (3, 4, 5, 6)).astype(np.int16)
    whole = write_volume(tmp_path / name, values=values).read_bytes()
    path = tmp_path / f"flipped_{name}"
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for position in rng.integers(0, min(len(content), 400), size=3):
            content[position] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            image = fmri.load(path).data
            assert np.asanyarray(image.dataobj).shape == image.shape
        except NeurommError:
            refused += 1
    assert refused > 30


def test_a_wrong_extension_says_how_to_rename(tmp_path):
    path = write_volume(tmp_path / "run_bold.nii.gz")
    renamed = path.rename(tmp_path / "run_bold.nii")
    with pytest.raises(DataError, match=r"rename it to end in .nii.gz"):
        fmri.load(renamed)
    plain = write_volume(tmp_path / "plain_bold.nii").rename(tmp_path / "b.nii.gz")
    with pytest.raises(DataError, match="not gzip-compressed"):
        fmri.load(plain)


def test_a_cifti_file_is_refused_by_its_name(tmp_path):
    from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis

    axes = SeriesAxis(0, 2, 3), BrainModelAxis.from_mask(np.ones(4), "CORTEX_LEFT")
    path = tmp_path / "sub-01_task-film_bold.dtseries.nii"
    Cifti2Image(np.zeros((3, 4), np.float32), header=axes).to_filename(path)
    with pytest.raises(DataError, match="CIFTI"):
        fmri.load(path)


def test_a_file_without_permission_is_missing_input(bold, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("neuromm.io.volumes.gzip.open", refuse)
    with pytest.raises(InputMissingError, match=r"cannot be read \(Permission denied"):
        fmri.load(bold)


# Surfaces


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_hemisphere_brings_the_other(surface_pair, side):
    path = surface_pair if side == "left" else right_of(surface_pair)
    sample = fmri.load(path)
    assert list(sample.data) == ["left", "right"]
    assert sample.data["left"].darrays[0].data.mean() < 1.8
    assert sample.data["right"].darrays[0].data.mean() > 1.2
    assert "hemisphere" not in sample.entities
    assert sample.entities["space"] == "fsaverage5"
    assert surface_shape(sample.data["left"]) == (6, 12)


def test_a_missing_hemisphere_is_named(surface_pair):
    right_of(surface_pair).unlink()
    with pytest.raises(
        InputMissingError, match=r"hemi-R_.*other hemisphere of .*hemi-L"
    ):
        fmri.load(surface_pair)


def test_hemispheres_of_different_length_are_refused(surface_pair):
    write_surface(right_of(surface_pair), n_volumes=5)
    with pytest.raises(DataError, match=r"6 volumes in .*, 5 in"):
        fmri.load(surface_pair)


def test_a_surface_file_without_hemisphere_in_its_name_is_refused(surface_pair):
    plain = surface_pair.rename(surface_pair.with_name("task_bold.func.gii"))
    with pytest.raises(DataError, match="hemi-L or hemi-R"):
        fmri.load(plain)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.98])
def test_a_cut_surface_file_is_refused(surface_pair, share):
    content = surface_pair.read_bytes()
    surface_pair.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="copy or download it again"):
        fmri.load(surface_pair)


def test_bit_flips_give_a_readable_surface_or_a_neuromm_error(surface_pair):
    rng = np.random.default_rng(0)
    whole = surface_pair.read_bytes()
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), size=3):
            content[position] ^= 1 << rng.integers(8)
        surface_pair.write_bytes(content)
        try:
            assert surface_shape(fmri.load(surface_pair).data["left"]) == (6, 12)
        except NeurommError:
            refused += 1
    assert refused > 50


def test_a_single_surface_map_is_no_series(surface_pair):
    write_surface(surface_pair, n_volumes=1)
    with pytest.raises(DataError, match="single map"):
        fmri.load(surface_pair)


def test_a_data_array_that_unpacks_to_more_than_it_states_is_refused(surface_pair):
    text = surface_pair.read_text()
    bomb = base64.b64encode(zlib.compress(bytes(50 * 2**20))).decode()
    start = text.index("<Data>") + len("<Data>")
    surface_pair.write_text(text[:start] + bomb + text[text.index("</Data>") :])
    tracemalloc.start()
    with pytest.raises(DataError, match="states the dimensions"):
        fmri.load(surface_pair)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_entities_in_xml_are_refused(surface_pair):
    text = surface_pair.read_text()
    bomb = '<!DOCTYPE GIFTI [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n'
    start = text.index("<!DOCTYPE")
    end = text.index(">", start) + 1
    surface_pair.write_text(text[:start] + bomb + text[end:])
    with pytest.raises(DataError, match="entities"):
        fmri.load(surface_pair)


def test_data_in_another_file_are_not_followed(surface_pair):
    text = surface_pair.read_text()
    text = text.replace("GZipBase64Binary", "ExternalFileBinary")
    surface_pair.write_text(text)
    with pytest.raises(DataError, match="'ExternalFileBinary' is not supported"):
        fmri.load(surface_pair)


# Repetition time


@pytest.mark.parametrize(
    ("zooms", "units", "expected"),
    [(2.0, "sec", 2.0), (800.0, "msec", 0.8), (0.8, "sec", 0.8), (1.5e6, "usec", 1.5)],
)
def test_the_unit_of_the_header_is_honoured(tmp_path, zooms, units, expected):
    path = write_volume(tmp_path / "run_bold.nii.gz", zooms=zooms, units=units)
    assert fmri.repetition_time(fmri.load(path)) == expected


def test_header_and_sidecar_that_disagree_are_both_named(bold):
    sidecar = bold.with_name("sub-01_task-film_bold.json")
    sidecar.write_text(json.dumps({"RepetitionTime": 2.5}))
    pattern = rf"{bold}.*repetition time of 2 s.*{sidecar} 2.5 s"
    with pytest.raises(DataError, match=pattern):
        fmri.repetition_time(fmri.load(bold))


def test_a_disagreeing_sidecar_higher_up_is_named(bold):
    bold.with_name("sub-01_task-film_bold.json").unlink()
    root = bold.parents[2]
    (root / "task-rest_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    above = root / "task-film_bold.json"
    above.write_text(json.dumps({"RepetitionTime": 3.0}))
    sample = fmri.load(bold, metadata={"RepetitionTime": 3.0})
    with pytest.raises(DataError, match=rf"its sidecar {above} 3 s"):
        fmri.repetition_time(sample)


def test_a_difference_below_one_millisecond_is_rounding(bold):
    sample = fmri.load(bold, metadata={"RepetitionTime": 2.0009})
    assert fmri.repetition_time(sample) == 2.0009


@pytest.mark.parametrize(("zooms", "sidecar"), [(1.0, 2.0), (2.0, 2.0), (2000.0, 2.0)])
def test_a_header_without_time_unit_is_only_checked(tmp_path, zooms, sidecar):
    path = write_volume(tmp_path / "run_bold.nii.gz", zooms=zooms)
    sample = fmri.load(path, metadata={"RepetitionTime": sidecar})
    assert fmri.repetition_time(sample) == sidecar


def test_a_header_without_time_unit_that_fits_in_no_unit_is_refused(tmp_path):
    path = write_volume(tmp_path / "run_bold.nii.gz", zooms=3.0)
    with pytest.raises(DataError, match=r"3 s, its sidecar .* 2 s"):
        fmri.repetition_time(fmri.load(path, metadata={"RepetitionTime": 2.0}))


def test_without_any_statement_the_cure_is_named(tmp_path, surface_pair):
    path = write_volume(tmp_path / "run_bold.nii.gz", zooms=3.0)
    with pytest.raises(DataError, match=r'without a unit.*"RepetitionTime".*bold.json'):
        fmri.repetition_time(fmri.load(path))
    with pytest.raises(DataError, match='add "RepetitionTime" in seconds'):
        fmri.repetition_time(fmri.load(surface_pair))


def test_surfaces_take_the_repetition_time_of_the_sidecar(surface_pair):
    sample = fmri.load(surface_pair, metadata={"RepetitionTime": 1.5})
    assert fmri.repetition_time(sample) == 1.5


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (2000, "2000 s, which cannot be. Is it in milliseconds"),
        (0, "0 s, which cannot be"),
        ("2", 'must be a number of seconds, got "2"'),
        (None, "must be a number of seconds, got null"),
    ],
)
def test_an_impossible_repetition_time_is_refused(bold, stated, message):
    with pytest.raises(DataError, match=message):
        fmri.repetition_time(fmri.load(bold, metadata={"RepetitionTime": stated}))


def test_volumes_at_irregular_times_are_refused(bold):
    with pytest.raises(DataError, match="VolumeTiming"):
        fmri.repetition_time(fmri.load(bold, metadata={"VolumeTiming": [0, 3, 5]}))


# Masks


def test_a_mask_is_one_where_the_file_is_not_zero(tmp_path):
    values = np.zeros((3, 4, 5), np.float32)
    values[0, 0, :3] = 1, 7, np.nan
    path = write_volume(tmp_path / "mask.nii.gz", values=values)
    mask = fmri.load_mask(path)
    assert mask.get_data_dtype() == np.uint8
    assert np.argwhere(np.asanyarray(mask.dataobj)).tolist() == [[0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 4, 5), np.uint8), "the mask is empty"),
        (np.full((3, 4, 5), 0.3, np.float32), "fractions between 0.3 and 0.3"),
        (np.ones((3, 4, 5, 6), np.uint8), "3-D mask, got 4-D"),
    ],
)
def test_an_image_that_is_no_mask_is_refused(tmp_path, values, message):
    path = write_volume(tmp_path / "mask.nii.gz", values=values)
    with pytest.raises(DataError, match=f"mask.nii.gz: .*{message}"):
        fmri.load_mask(path)


def test_grids_that_differ_name_both_files_and_the_cure():
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5, 6), np.int16), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    other = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), shifted)
    pattern = r"bold.nii and mask.nii .* differ by up to 0.5 mm.*resample_to_img"
    with pytest.raises(DataError, match=pattern):
        fmri.check_same_grid(image, other, "bold.nii", "mask.nii")
    smaller = nibabel.Nifti1Image(np.ones((3, 4, 4), np.uint8), np.eye(4))
    with pytest.raises(DataError, match=r"shapes are \(3, 4, 5\) and \(3, 4, 4\)"):
        fmri.check_same_grid(image, smaller, "bold.nii", "mask.nii")


def test_a_turn_that_moves_the_far_corner_counts_and_rounding_does_not():
    image = nibabel.Nifti1Image(np.zeros((100, 100, 100), np.uint8), np.eye(4))
    turned, rounded = np.eye(4), np.eye(4)
    turned[0, 1] = 1e-4  # 0.01 mm at the 100th voxel
    rounded[0, 1] = 1e-6
    data = np.zeros((100, 100, 100), np.uint8)
    with pytest.raises(DataError, match=r"0\.0099 mm"):
        fmri.check_same_grid(image, nibabel.Nifti1Image(data, turned))
    fmri.check_same_grid(image, nibabel.Nifti1Image(data, rounded))


# Example


def test_the_example_is_the_same_for_the_same_seed(tmp_path):
    first = fmri.write_example(tmp_path / "a", rng=3)
    second = fmri.write_example(tmp_path / "b", rng=3)
    other = fmri.write_example(tmp_path / "c", rng=4)
    assert first.relative_to(tmp_path / "a").parent == FUNC
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    events = pd.read_csv(first.with_name("sub-01_task-film_events.tsv"), sep="\t")
    sample = fmri.load(first)
    assert isinstance(sample, Sample)
    length = sample.data.shape[3] * fmri.repetition_time(sample)
    assert (events["onset"] + events["duration"] <= length).all()
