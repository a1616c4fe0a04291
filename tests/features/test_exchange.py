"""Truths about feature files: they come back as they were, and do no harm."""

import contextlib
import gzip
import io
import json
import os
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuromm.core import DataError, InputMissingError, NeurommError, UsageError
from neuromm.features import feature_table, read_features, write_features
from neuromm.io import file_limits

EXTENSIONS = [".tsv", ".tsv.gz", ".npz", ".nc", ".zarr"]

names = st.text(
    st.characters(codec="utf-8", categories=("L", "N"), include_characters="/._-"),
    min_size=1,
    max_size=8,
)


def vision(dtype=float, **settings):
    values = np.random.default_rng(0).standard_normal((3, 2)).astype(dtype)
    given = {"stim_file": ["a.png", "b.png", "dir/a.png"], "columns": ["edges", "hue"]}
    return feature_table(values, name="vision", **{**given, **settings})


def write_tsv(path, text):
    path.write_text(text.replace(" | ", "\t"), encoding="utf-8")
    return path


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_table_reads_back_as_it_was_written(tmp_path, extension):
    table = vision(run=["1", "2", "2"], attrs={"model": "pixels", "layer": 3})
    path = write_features(tmp_path / f"vision{extension}", table)
    back = read_features(path)
    assert (back.name, back.key, back.columns) == ("vision", "stim_file", table.columns)
    assert back.attrs == {"model": "pixels", "layer": 3}
    pd.testing.assert_frame_equal(back.keys, table.keys)
    np.testing.assert_array_equal(back.values, table.values)
    assert back.source == path
    assert sorted(p.name for p in tmp_path.iterdir() if "tmp" in p.name) == []


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.lists(names, min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 2**31),
    extension=st.sampled_from(EXTENSIONS),
    single=st.booleans(),
)
def test_any_text_and_any_number_survive(tmp_path, keys, seed, extension, single):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(keys), 2)) * 10.0 ** rng.integers(-30, 30)
    values = values.astype(np.float32 if single else np.float64)
    table = feature_table(values, trial_type=keys)
    back = read_features(write_features(tmp_path / f"x{extension}", table))
    assert list(back.keys["trial_type"]) == keys
    # A text table does not say how many digits a number had in memory.
    np.testing.assert_array_equal(back.values.astype(values.dtype), values)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_onsets_durations_and_labels_survive(tmp_path, extension):
    table = feature_table(
        np.eye(3), onset=[0.1, 2.7, 0.1], duration=[0.5, 0, 1], run=["01", "01", "02"]
    )
    back = read_features(write_features(tmp_path / f"x{extension}", table), "words")
    pd.testing.assert_frame_equal(back.keys, table.keys)
    assert (back.name, back.key) == ("words", "onset")


@pytest.mark.parametrize("extension", [".tsv", ".tsv.gz", ".npz"])
def test_the_same_table_gives_the_same_bytes(tmp_path, extension):
    first, second = (
        write_features(tmp_path / folder / f"x{extension}", vision())
        for folder in ("a", "b")
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_zarr_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "x.zarr"
    write_features(path, feature_table(np.zeros((5, 9)), trial_type=list("abcde")))
    write_features(path, vision())
    np.testing.assert_array_equal(read_features(path).values, vision().values)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_a_table_of_pandas_is_read(tmp_path):
    frame = pd.DataFrame(
        {"stim_file": ["a.png", "b.png"], "hue": [1, 2], "on": [True, False]}
    )
    frame.to_csv(tmp_path / "low.tsv", sep="\t", index=False)
    table = read_features(tmp_path / "low.tsv")
    np.testing.assert_array_equal(table.values, [[1, 1], [2, 0]])
    assert table.columns == ("hue", "on")


def test_descriptions_of_columns_in_the_sidecar_are_no_attributes(tmp_path):
    write_tsv(tmp_path / "low.tsv", "trial_type | hue\na | 1\n")
    sidecar = {"model": "pixels", "hue": {"Description": "mean hue", "Units": "degree"}}
    (tmp_path / "low.json").write_text(json.dumps(sidecar))
    assert read_features(tmp_path / "low.tsv").attrs == {"model": "pixels"}


def test_arrays_of_numpy_are_read(tmp_path):
    np.savez(
        tmp_path / "clip.npz",
        values=np.ones((2, 3), dtype=np.float16),
        stim_file=np.array([b"a.png", b"b.png"]),
    )
    table = read_features(tmp_path / "clip.npz")
    assert list(table.keys["stim_file"]) == ["a.png", "b.png"]
    assert (table.values.dtype, table.columns) == (np.float32, ("0", "1", "2"))


def test_single_arrays_are_features_too(tmp_path):
    np.savez(tmp_path / "x.npz", onset=[0.0, 2.0], rms=[0.5, 0.7], pitch=[1, 2])
    table = read_features(tmp_path / "x.npz")
    assert table.columns == ("rms", "pitch")
    np.testing.assert_array_equal(table.values, [[0.5, 1], [0.7, 2]])


@pytest.mark.filterwarnings("ignore:The data type.*does not have a Zarr V3")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_of_xarray_is_read(tmp_path, zarr_format):
    array = xr.DataArray(
        np.arange(6.0).reshape(2, 3),
        dims=("stim_file", "feature"),
        coords={"stim_file": ["a", "b"], "feature": ["x", "y", "z"]},
        attrs={"model": "net", "shape": [1, 2]},
        name="activations",
    )
    array.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    array.to_dataset().to_zarr(
        tmp_path / "x.zarr", zarr_format=zarr_format, consolidated=False
    )
    for extension in (".nc", ".zarr"):
        table = read_features(tmp_path / f"x{extension}")
        assert (table.key, table.columns) == ("stim_file", ("x", "y", "z"))
        assert table.attrs == {"model": "net"}
        np.testing.assert_array_equal(table.values, array.values)


def test_onsets_with_a_unit_stay_seconds(tmp_path):
    array = xr.Dataset(
        {"values": (("row", "feature"), np.eye(2))},
        coords={"onset": ("row", [0.5, 1.5], {"units": "seconds"})},
    )
    array.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    np.testing.assert_array_equal(
        read_features(tmp_path / "x.nc").keys["onset"], [0.5, 1.5]
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "hue | edges",
            r"has no key: expected a column stim_file.*hue, edges",
        ),
        ("stim_file | onset", "has 2 keys, stim_file and onset, expected one"),
        ("trial_type | trial_type", "two columns are called 'trial_type'"),
        ("stim_file,hue", r"has no key.*columns: stim_file,hue.*separated by tabs"),
    ],
)
def test_a_table_needs_one_key(tmp_path, header, message):
    n_columns = header.count("|") + 1
    row = " | ".join(["1"] * n_columns)
    path = write_tsv(tmp_path / "x.tsv", f"{header}\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_features(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a | 1\nb | red", r"line 3: column hue holds 'red', expected a number"),
        ("a | 1,5\nb | 2", r"line 2: column hue holds '1,5'.*decimal point"),
        (
            "a | 1\nb | n/a",
            r"1 values are missing or infinite.*hue of b \(row 2\): nan",
        ),
        ("a | inf\nb | 2", "missing or infinite, the first in feature hue of a"),
        ("a | 1\na | 2", "1 rows repeat the stim_file of another row.* a in row 2"),
        ("a | 1\nstimuli/a | 2", "repeat the stim_file"),
        ("a | 1\n./a | 2", "repeat the stim_file"),
        ("n/a | 1\nb | 2", "stim_file is empty in 1 rows, the first is row 1"),
        ("a | 1 | 3\nb | 2", "is no table of 2 columns"),
        ("a\nb | 2", "missing or infinite"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, rows, message):
    path = write_tsv(tmp_path / "x.tsv", f"stim_file | hue\n{rows}\n")
    with pytest.raises(DataError, match=message):
        read_features(path)


def test_an_onset_that_is_no_number_is_named(tmp_path):
    path = write_tsv(tmp_path / "x.tsv", "onset | hue\n1.5 | 1\n2:30 | 2\n")
    with pytest.raises(DataError, match="onset must be seconds, got '2:30' in row 2"):
        read_features(path)


def test_the_same_onset_may_occur_in_two_runs(tmp_path):
    rows = "onset | run | hue\n1.5 | 1 | 1\n1.5 | run-02 | 2\n"
    assert len(read_features(write_tsv(tmp_path / "x.tsv", rows)).keys) == 2
    same = rows.replace("run-02", "run-01")
    with pytest.raises(DataError, match=r"repeat the onset.*Say in a column run"):
        read_features(write_tsv(tmp_path / "y.tsv", same))


def test_a_table_without_rows_or_features_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no features"):
        read_features(write_tsv(tmp_path / "x.tsv", "stim_file | hue\n"))
    with pytest.raises(DataError, match="holds no features"):
        read_features(write_tsv(tmp_path / "y.tsv", "stim_file\na\n"))
    with pytest.raises(DataError, match="is empty"):
        read_features(write_tsv(tmp_path / "z.tsv", ""))


def test_unpooled_activations_are_refused():
    with pytest.raises(DataError, match=r"got \(2, 3, 4\).*Pool or flatten"):
        feature_table(np.zeros((2, 3, 4)), stim_file=["a", "b"])


def test_a_missing_file_and_a_strange_extension_are_told_apart(tmp_path):
    with pytest.raises(InputMissingError, match="no feature table at"):
        read_features(tmp_path / "nowhere.tsv")
    with pytest.raises(
        UsageError, match=r"\.tsv\.gz, \.npz, \.nc, \.zarr, got '\.csv'"
    ):
        read_features(tmp_path / "x.csv")


class Trap:
    """An object that, when it is unpickled, leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_objects_are_never_loaded(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung"), "b"], dtype=object)
    np.savez(tmp_path / "x.npz", values=np.eye(2), stim_file=trap, allow_pickle=True)
    with pytest.raises(
        DataError, match=r"stim_file\.npy holds Python objects.*dtype=str"
    ):
        read_features(tmp_path / "x.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("codec", ["pickle", "json2"])
def test_zarr_codecs_that_build_objects_are_refused(tmp_path, codec):
    path = write_features(tmp_path / "x.zarr", vision())
    meta = path / "stim_file" / ".zarray"
    content = json.loads(meta.read_text())
    content.update(dtype="|O", filters=[{"id": codec}])
    meta.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"stim_file uses the codec {codec}"):
        read_features(path)


def test_zarr_chunks_outside_of_the_folder_are_refused(tmp_path):
    path = write_features(tmp_path / "x.zarr", vision())
    chunk = path / "values" / "0.0"
    (tmp_path / "secret").write_bytes(chunk.read_bytes())
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="is a link out of the folder"):
        read_features(path)


def test_links_to_other_hdf5_files_are_refused(tmp_path):
    write_features(tmp_path / "secret.nc", vision())
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file["values"] = h5py.ExternalLink("secret.nc", "/values")
    with pytest.raises(DataError, match=r"values is a link to another file \(secret"):
        read_features(tmp_path / "x.nc")


def test_hdf5_data_in_other_files_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file.create_dataset(
            "values", (8,), "f8", external=[(str(tmp_path / "secret"), 0, 64)]
        )
    with pytest.raises(DataError, match="the data of /values lie in another file"):
        read_features(tmp_path / "x.nc")


def test_an_hdf5_group_that_holds_itself_is_visited_once(tmp_path):
    path = write_features(tmp_path / "x.nc", vision())
    with h5py.File(path, "r+") as file:
        file["loop"] = file["/"]
    file_limits.check_hdf5(path)


def huge_npz(path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("values.npy", header.getvalue() + bytes(800))


def huge_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("values", (10**6, 10**6), "f8", chunks=(100, 100))


def huge_zarr(path):
    write_features(path, vision())
    meta = path / "values" / ".zarray"
    content = json.loads(meta.read_text())
    content.update(shape=[10**7, 10**7])
    meta.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("make", "extension", "message"),
    [
        (huge_npz, ".npz", "declares 8000000000000 bytes and holds 800"),
        (huge_hdf5, ".nc", "declares 7629395 MB"),
        (huge_zarr, ".zarr", "declares 762939453 MB"),
    ],
)
def test_a_header_that_claims_terabytes_is_refused(tmp_path, make, extension, message):
    path = tmp_path / f"x{extension}"
    make(path)
    with pytest.raises(DataError, match=message):
        read_features(path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(file_limits, "_ALWAYS_ALLOWED_BYTES", 2**20)
    zeros = bytes(8 * 2**20)
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(zeros))
    with pytest.raises(DataError, match="more than 500 times its size"):
        read_features(tmp_path / "x.tsv.gz")
    np.savez_compressed(tmp_path / "x.npz", values=np.zeros((1024, 1024)))
    with pytest.raises(DataError, match="save it uncompressed"):
        read_features(tmp_path / "x.npz")


@pytest.mark.parametrize("extension", [".tsv.gz", ".npz", ".nc"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path, extension, share):
    values = np.random.default_rng(0).standard_normal((20, 20))
    table = feature_table(values, trial_type=[f"t{i}" for i in range(20)])
    path = write_features(tmp_path / f"x{extension}", table)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"x{extension}: "):
        read_features(path)


def test_a_heap_without_an_end_is_refused(tmp_path):
    # HDF5 2.0 walks such a heap for ever.
    path = write_features(tmp_path / "x.nc", vision())
    content = bytearray(path.read_bytes())
    start = content.find(b"GCOL")
    content[start + 16 : start + 32] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_features(path)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), extension=st.sampled_from([".tsv", ".tsv.gz", ".npz", ".nc"]))
def test_damage_gives_a_value_or_one_of_our_errors(tmp_path, data, extension):
    path = write_features(tmp_path / f"x{extension}", vision(attrs={"model": "net"}))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content)
    with contextlib.suppress(NeurommError):
        assert np.isfinite(read_features(path).values).all()
