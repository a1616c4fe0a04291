"""Every place in which responses lie gives the same columns, each byte read once."""

import gzip
import io
import os
import tracemalloc
from collections import Counter

import h5py
import nibabel
import numpy as np
import pytest
import zarr
from nilearn.masking import apply_mask, unmask

from neuromm.core import DataError, InputMissingError, OutputError, UsageError
from neuromm.encoding import nifti_targets, target_scratch, target_sources
from neuromm.encoding.nifti_targets import NiftiTargets
from neuromm.encoding.target_sources import (
    array_digest,
    target_source,
    targets_stamp,
)

SHAPE = (60, 301)


def responses(dtype="f4", shape=SHAPE):
    values = np.random.default_rng(0).standard_normal(shape)
    return (100 * values).astype(dtype)


def all_columns(source, width):
    """The whole matrix in batches, each held against the contract."""
    batches = []
    for start in range(0, source.shape[1], width):
        batch = source.read(slice(start, start + width))
        assert batch.dtype == source.dtype
        assert batch.flags.c_contiguous
        assert batch.flags.writeable
        batches.append(batch)
    return np.hstack(batches)


def stored(kind, y, folder):
    """The responses in one of the forms that are accepted."""
    if kind == "array":
        return y
    if kind == "Fortran":
        return np.asfortranarray(y)
    if kind == "view":
        return np.repeat(y[::-1], 2, axis=1)[::-1, ::2]
    if kind.startswith("memmap"):
        path, order = folder / "y.bin", kind[-1]
        y.ravel(order).tofile(path)
        return np.memmap(path, y.dtype, "r", shape=y.shape, order=order)
    if kind.startswith("h5py"):
        chunks = {"none": None, "squares": (16, 50), "slabs": (7, y.shape[1])}
        with h5py.File(folder / "y.h5", "w", userblock_size=512) as file:
            file.create_dataset("before", data=np.arange(5))
            file.create_dataset("y", data=y, chunks=chunks[kind.split()[1]])
        return h5py.File(folder / "y.h5")["y"]
    if kind.startswith("zarr"):
        shards = (32, 100) if "shards" in kind else None
        array = zarr.create_array(
            folder / "y.zarr", shape=y.shape, dtype=y.dtype, chunks=(16, 50),
            shards=shards,
        )  # fmt: skip
        array[:] = y
        return array
    return Slabs(y, (y.shape[0], 1))


class Slabs:
    """A stand-in for a chunked file that counts how often each rectangle is unpacked.

    Like HDF5 and zarr, it unpacks every rectangle that a request touches.
    """

    def __init__(self, y, chunks):
        self.shape, self.dtype, self.chunks = y.shape, y.dtype, chunks
        self.unpacked = Counter()
        self._y = y

    def __getitem__(self, key):
        rows, columns = key
        high, wide = self.chunks
        for i in range(rows.start // high, -(-rows.stop // high)):
            for j in range(columns.start // wide, -(-columns.stop // wide)):
                self.unpacked[i, j] += 1
        return self._y[key]


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2", "i4", "f2", "u1"])
@pytest.mark.parametrize(
    "kind",
    ["array", "Fortran", "view", "memmap C", "memmap F", "h5py none", "h5py squares",
     "h5py slabs", "zarr", "zarr shards", "other"],
)  # fmt: skip
@pytest.mark.parametrize("memory", [10**9, 1000])
def test_all_sources_give_the_columns_of_the_array(
    kind, dtype, memory, tmp_path, monkeypatch
):
    monkeypatch.setattr(target_sources, "PIECE_BYTES", 3000)
    y = responses(dtype) if dtype != "u1" else responses("i8").astype("u1")
    source = target_source(stored(kind, y, tmp_path), memory=memory)
    # Longer integers do not fit in the 24 bits of a float32.
    exact = np.float64 if dtype in ("f8", "i4") else np.float32
    assert source.shape == SHAPE
    assert source.dtype == exact
    for width in (1 if kind == "array" else 40, source.chunk, 301, 1000):
        np.testing.assert_array_equal(all_columns(source, width), y.astype(exact))


def test_a_batch_is_never_a_view_of_the_source():
    y = responses()
    for form in (y, Slabs(y, (60, 7))):
        target_source(form).read(slice(0, 5))[:] = 0
    np.testing.assert_array_equal(y, responses())


@pytest.mark.parametrize("piece_bytes", [2000, 10**8])
@pytest.mark.parametrize("chunks", [(60, 1), (16, 50), (60, 301), (7, 301), (1, 1000)])
def test_batches_of_whole_chunks_unpack_each_one_once(chunks, piece_bytes, monkeypatch):
    monkeypatch.setattr(target_sources, "PIECE_BYTES", piece_bytes)
    file = Slabs(responses(), chunks)
    source = target_source(file)
    all_columns(source, source.chunk * 2)
    n_chunks = -(-60 // chunks[0]) * -(-301 // chunks[1])
    assert len(file.unpacked) == n_chunks
    assert set(file.unpacked.values()) == {1}


@pytest.mark.parametrize("chunks", [(7, 301), (16, 50)])
def test_chunks_too_wide_for_memory_are_unpacked_once_and_turned_on_disk(chunks):
    file = Slabs(responses(), chunks)
    source = target_source(file, memory=60 * 49 * 4)
    assert source.chunk == 128
    np.testing.assert_array_equal(all_columns(source, 128), responses())
    np.testing.assert_array_equal(all_columns(source, 17), responses())
    assert set(file.unpacked.values()) == {1}


def test_hdf5_unpacks_each_chunk_once():
    # HDF5 asks a Python object for the bytes of the file, and they are counted.
    class CountedBytes(io.BytesIO):
        n_read = 0

        def readinto(self, buffer):
            n = super().readinto(buffer)
            self.n_read += n
            return n

    raw, y = CountedBytes(), responses(shape=(64, 4096))
    with h5py.File(raw, "w") as file:
        file.create_dataset("y", data=y, chunks=(16, 256), compression="gzip")
        n_stored = file["y"].id.get_storage_size()
    # Without a cache of chunks, which would hide a second reading.
    with h5py.File(raw, "r", rdcc_nbytes=0) as file:
        source = target_source(file["y"])
        raw.n_read = 0
        all_columns(source, 2 * source.chunk)
        # Beside the chunks, HDF5 reads its index of them.
        assert n_stored <= raw.n_read < 1.05 * n_stored
        raw.n_read = 0
        all_columns(source, source.chunk // 2)
        assert raw.n_read >= 2 * n_stored  # the count does see a second reading


def test_zarr_reads_each_chunk_once(tmp_path):
    class CountingStore(zarr.storage.LocalStore):
        gets = Counter()  # noqa: RUF012

        async def get(self, key, prototype, byte_range=None):
            if "/c/" in f"/{key}":
                self.gets[key] += 1
            return await super().get(key, prototype, byte_range)

    stored("zarr", responses(), tmp_path)
    array = zarr.open_array(CountingStore(tmp_path / "y.zarr"), mode="r")
    source = target_source(array)
    assert source.chunk == 50
    np.testing.assert_array_equal(all_columns(source, 100), responses())
    assert len(CountingStore.gets) == 4 * 7
    assert set(CountingStore.gets.values()) == {1}


def test_missing_values_pass():
    y = responses()
    y[3, 7] = np.nan
    assert np.isnan(target_source(Slabs(y, (9, 9))).read(slice(7, 8))[3, 0])


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([[1.0, 2.0]], "an h5py.Dataset, a zarr.Array.*got list"),
        (np.zeros(3), "2-D"),
        (np.zeros((3, 0)), "at least one sample by one target"),
        (np.zeros((3, 2), complex), "real numbers"),
        (np.zeros((3, 2), object), "real numbers"),
        (np.ma.masked_array(np.zeros((3, 2))), "filled"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(y, told):
    with pytest.raises(UsageError, match=told):
        target_source(y)


def test_columns_are_adjacent():
    with pytest.raises(UsageError, match="adjacent"):
        target_source(responses()).read(slice(0, 10, 2))


def test_damage_in_a_file_is_named(tmp_path):
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("y", data=responses(), chunks=(60, 301), compression="gzip")
        position = file["y"].id.get_chunk_info(0).byte_offset
    with open(tmp_path / "y.h5", "r+b") as file:
        file.seek(position)
        file.write(bytes(100))
    dataset = h5py.File(tmp_path / "y.h5")["y"]
    source = target_source(dataset)
    with pytest.raises(DataError, match=r"y\.h5: rows 0 to 60 of targets.*damaged"):
        source.read(slice(0, 5))
    dataset.file.close()
    with pytest.raises(UsageError, match="closed: open it"):
        target_source(dataset)


def test_the_stamp_tells_other_values_from_the_same_ones(tmp_path):
    y = responses()
    other = y.copy()
    other[30, 200] += 1  # no column of those that are sampled
    for kind in ("array", "Fortran", "memmap C", "memmap F", "h5py none", "h5py slabs",
                 "zarr"):  # fmt: skip
        stamps = []
        for i, values in enumerate((y, other)):
            folder = tmp_path / f"{kind}{i}"
            folder.mkdir()
            source = target_source(stored(kind, values, folder))
            assert targets_stamp(source) == targets_stamp(source)
            stamps.append(targets_stamp(source))
        assert stamps[0] != stamps[1], kind
    assert targets_stamp(target_source(Slabs(y, (9, 9)))) != targets_stamp(
        target_source(Slabs(y + 1, (9, 9)))
    )


def test_a_slice_of_a_memmap_is_not_the_whole(tmp_path):
    mapped = stored("memmap C", responses(), tmp_path)
    stamps = [targets_stamp(target_source(mapped[:, i : i + 9])) for i in (0, 1)]
    assert stamps[0]["file"] == stamps[1]["file"] == "y.bin"
    assert stamps[1]["first_byte"] == 4
    assert stamps[0] != stamps[1]


def test_the_digest_is_that_of_the_values_and_not_of_their_order(monkeypatch):
    y = responses()
    whole = array_digest(y)
    assert array_digest(np.asfortranarray(y)) == whole
    monkeypatch.setattr(target_sources, "PIECE_BYTES", 1000)
    assert array_digest(y) == whole
    assert array_digest(y.reshape(301, 60)) != whole
    assert array_digest(y.astype("f8")) != whole


# Runs of NIfTI volumes ---------------------------------------------------------------


def a_mask(shape=(5, 6, 4)):
    inside = np.random.default_rng(1).random(shape) > 0.4
    return nibabel.Nifti1Image(inside.astype("u1"), AFFINE)


AFFINE = np.array([[-2.0, 0, 0, 9], [0, 2.5, 0, -8], [0, 0, 3, 1], [0, 0, 0, 1]])


def a_run(n_volumes, seed=0, dtype=np.int16, slope=None):
    values = np.random.default_rng(seed).normal(900, 50, (5, 6, 4, n_volumes))
    image = nibabel.Nifti1Image(values.astype(dtype), AFFINE)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    return image


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("slab_bytes", [1, 10**7])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", "in memory"])
def test_nifti_targets_are_those_of_nilearn(
    ending, slab_bytes, dtype, tmp_path, monkeypatch
):
    monkeypatch.setattr(nifti_targets, "_SLAB_BYTES", slab_bytes)
    runs = [
        a_run(7, 0),
        a_run(1, 1, np.float32),
        a_run(5, 2, ">i2"),
        a_run(4, 3, "u1", slope=(0.37, -12.5)),
    ]
    images = list(runs)
    if ending != "in memory":
        paths = [tmp_path / f"run{i}{ending}" for i in range(len(runs))]
        for run, path in zip(runs, paths, strict=True):
            run.to_filename(path)
        images = [nibabel.load(path) for path in paths]
        runs = [paths[0], str(paths[1]), images[2], paths[3]]
    mask = a_mask()
    expected = np.vstack([apply_mask(image, mask, dtype=dtype) for image in images])
    with NiftiTargets(runs, mask, dtype=dtype) as targets:
        assert target_source(targets) is targets
        assert targets.shape == expected.shape
        assert targets.run_lengths == (7, 1, 5, 4)
        np.testing.assert_array_equal(all_columns(targets, targets.chunk), expected)
        np.testing.assert_array_equal(all_columns(targets, 13), expected)
        back = unmask(targets.read(slice(0, None)), mask).get_fdata()
    np.testing.assert_array_equal(back[..., 0][mask.get_fdata() > 0], expected[0])


def test_each_run_is_unpacked_once_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti_targets, "_SLAB_BYTES", 1)
    n_read = []
    original = gzip.GzipFile.read

    def counted(self, size=-1):
        part = original(self, size)
        n_read.append(len(part))
        return part

    path = tmp_path / "run.nii.gz"
    a_run(50).to_filename(path)
    targets = NiftiTargets([path], a_mask())
    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    for width in (1, 7, 100):
        all_columns(targets, width)
    assert sum(n_read) == 352 + 2 * 5 * 6 * 4 * 50  # header and values, once
    assert max(n_read) == 352  # and one volume at a time


def test_a_run_larger_than_the_buffers_takes_their_memory(tmp_path, monkeypatch):
    path = tmp_path / "run.nii.gz"
    a_run(20_000).to_filename(path)  # 4.8 MB of values
    monkeypatch.setattr(nifti_targets, "_SLAB_BYTES", 100_000)
    monkeypatch.setattr(target_scratch, "PIECE_BYTES", 100_000)
    NiftiTargets([a_run(3)], a_mask()).read(slice(0, 1))  # imports
    tracemalloc.start()
    column = NiftiTargets([path], a_mask()).read(slice(0, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The column, a slab, a piece and the buffers of files and gzip.
    assert peak < column.nbytes + 3 * 100_000 + 500_000


def test_scratch_is_found_again_in_a_folder_and_gone_without_one(tmp_path):
    run, mask, scratch = tmp_path / "run.nii.gz", a_mask(), tmp_path / "scratch"
    a_run(9).to_filename(run)
    expected = all_columns(NiftiTargets([run], mask, scratch=scratch), 10)
    (kept,) = (scratch / "neuromm-targets").iterdir()
    assert kept.stat().st_size == expected.nbytes
    written = kept.stat().st_mtime_ns
    again = NiftiTargets([run], mask, scratch=scratch)
    np.testing.assert_array_equal(all_columns(again, 99), expected)
    assert kept.stat().st_mtime_ns == written

    a_run(9, seed=5).to_filename(run)
    changed = all_columns(NiftiTargets([run], mask, scratch=scratch), 10)
    assert not np.array_equal(changed, expected)

    before = set(os.listdir(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path))
        targets = NiftiTargets([run], mask)
        np.testing.assert_array_equal(all_columns(targets, 10), changed)
        assert set(os.listdir(tmp_path)) == before  # nameless while it is in use
    targets.close()
    with pytest.raises(UsageError, match="closed"):
        targets.read(slice(0, 1))


def test_a_spooled_file_is_copied_once_and_again_when_it_changes(tmp_path):
    dataset = stored("h5py slabs", responses(), tmp_path)
    copies = []
    for mtime_ns in (10**18, 10**18, 2 * 10**18):
        os.utime(tmp_path / "y.h5", ns=(mtime_ns, mtime_ns))
        source = target_source(dataset, scratch=tmp_path / "scratch", memory=1)
        np.testing.assert_array_equal(all_columns(source, 128), responses())
        copies.append(len(list((tmp_path / "scratch" / "neuromm-targets").iterdir())))
    assert copies == [1, 1, 2]


def test_a_full_disk_is_told_before_anything_is_read(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(target_scratch.shutil, "disk_usage", lambda folder: full)
    file = Slabs(responses(), (7, 301))
    source = target_source(file, scratch=tmp_path, memory=1)
    with pytest.raises(OutputError, match=r"only 1e-07 GB are free.*scratch="):
        source.read(slice(0, 1))
    assert not file.unpacked


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(28, "No space left on device")

    a_run(9).to_filename(tmp_path / "run.nii")
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(target_scratch.ScratchColumns, "_write", full)
    targets = NiftiTargets([tmp_path / "run.nii"], a_mask(), scratch=scratch)
    with pytest.raises(OutputError, match=r"No space left.*more room"):
        targets.read(slice(0, 1))
    assert not list((scratch / "neuromm-targets").iterdir())


@pytest.mark.parametrize("kept", [100, 700, -4, -1])
def test_a_truncated_run_is_named(kept, tmp_path):
    path = tmp_path / "run.nii.gz"
    a_run(20).to_filename(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"run\.nii\.gz: .*truncated"):
        NiftiTargets([path], a_mask()).read(slice(0, 1))


def test_a_wrong_checksum_is_found(tmp_path):
    path = tmp_path / "run.nii.gz"
    a_run(20).to_filename(path)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the stored CRC
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"run\.nii\.gz: .*damaged.*CRC"):
        NiftiTargets([path], a_mask()).read(slice(0, 1))


def test_a_header_that_states_fewer_volumes_than_there_are_is_found(tmp_path):
    path = tmp_path / "run.nii.gz"
    a_run(20).to_filename(path)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole + bytes(2**21)))
    with pytest.raises(DataError, match=r"run\.nii\.gz: .*more values than its header"):
        NiftiTargets([path], a_mask()).read(slice(0, 1))
    path.write_bytes(gzip.compress(whole + bytes(512)))  # padding, as some write it
    assert NiftiTargets([path], a_mask()).read(slice(0, 1)).shape == (20, 1)


def test_another_grid_is_named_with_what_was_expected(tmp_path):
    path = tmp_path / "run.nii"
    a_run(3).to_filename(path)
    with pytest.raises(DataError, match=r"run\.nii.*\(5, 6, 4\) and \(5, 6, 3\)"):
        NiftiTargets([path], a_mask((5, 6, 3)))
    moved = nibabel.Nifti1Image(a_mask().dataobj, AFFINE + np.eye(4, k=3))
    with pytest.raises(DataError, match=r"affines differ by up to 1 mm"):
        NiftiTargets([path], moved)


def test_images_that_are_no_series_or_no_mask_are_refused(tmp_path):
    three_d = nibabel.Nifti1Image(np.zeros((5, 6, 4), "f4"), AFFINE)
    three_d.to_filename(tmp_path / "mean.nii.gz")
    for run in (three_d, tmp_path / "mean.nii.gz"):
        with pytest.raises(DataError, match="expected a 4-D series, got 3-D"):
            NiftiTargets([run], a_mask())
    with pytest.raises(DataError, match="mask is empty"):
        NiftiTargets([a_run(3)], three_d)
    with pytest.raises(DataError, match="3-D mask"):
        NiftiTargets([a_run(3)], a_run(3))
    with pytest.raises(InputMissingError, match="no such file"):
        NiftiTargets([tmp_path / "none.nii.gz"], a_mask())
    with pytest.raises(UsageError, match="list of at least one"):
        NiftiTargets(tmp_path / "mean.nii.gz", a_mask())
    with pytest.raises(UsageError, match="dtype"):
        NiftiTargets([a_run(3)], a_mask(), dtype=np.int16)


def test_values_that_are_not_finite_are_named_or_kept():
    values = np.array(a_run(6).dataobj, dtype="f8")
    mask = a_mask()
    x, y, z = np.argwhere(np.asarray(mask.dataobj))[3]
    values[tuple(np.argwhere(np.asarray(mask.dataobj) == 0)[0])] = np.nan  # outside
    run = nibabel.Nifti1Image(values, AFFINE)
    assert np.isfinite(NiftiTargets([run], mask).read(slice(0, None))).all()
    values[x, y, z, 4] = 1e39  # infinite in float32
    with pytest.raises(DataError, match=r"run 2 .*1 voxels of volume 4"):
        NiftiTargets([a_run(6), run], mask).read(slice(0, 1))
    assert NiftiTargets([run], mask, dtype="f8").read(slice(3, 4))[4, 0] == 1e39
    values[x, y, z, 4] = np.nan
    kept = NiftiTargets([run], mask, non_finite="keep").read(slice(0, None))
    assert np.argwhere(np.isnan(kept)).tolist() == [[4, 3]]
