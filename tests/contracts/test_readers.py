"""What every reader holds to, whatever it reads; they are found by name."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from neuromm.core import InputMissingError, NeurommError, Sample
from neuromm.io import load, readers

pytestmark = pytest.mark.timeout(120)

NAMES = sorted(readers())
SEEDS = (("a", 7), ("b", 7), ("c", 8))


@pytest.fixture(scope="module", params=NAMES)
def reader(request):
    return readers()[request.param]


@pytest.fixture(scope="module")
def example(reader, tmp_path_factory):
    """An example that no test may change."""
    return reader.write_example(tmp_path_factory.mktemp(f"{reader.name}_example"))


@pytest.fixture
def copy(reader, tmp_path):
    """An example of the test's own."""
    return reader.write_example(tmp_path / "copy")


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def samples_file(reader, path: Path) -> Path:
    return path if reader.data_file is None else reader.data_file(path)


def kind(data):
    """What a native object is: each kind says in its own way what it holds."""
    if hasattr(data, "affine"):
        return "image"
    if hasattr(data, "obsm"):
        return "spots"
    return "slide" if hasattr(data, "microns_per_pixel") else "recording"


def is_on_disk(data):
    return {
        "image": lambda: not data.in_memory,
        "spots": lambda: data.isbacked,
        "slide": lambda: not data.is_in_memory,
        "recording": lambda: not data.preload,
    }[kind(data)]()


def values(data):
    return {
        "image": lambda: data.get_fdata(),
        "spots": lambda: data.to_memory().X,
        "slide": lambda: data.read(0, 0, data.width, data.height),
        "recording": lambda: data.get_data(),
    }[kind(data)]()


def quietly(reader, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reader.load(path)


def test_reader_describes_itself(reader):
    assert reader.name == reader.name.lower()
    assert reader.datatype
    assert reader.description
    assert all(e.startswith(".") and e == e.lower() for e in reader.extensions)


def test_example_loads_as_a_sample_of_its_modality(reader, example):
    sample = reader.load(example)
    assert isinstance(sample, Sample)
    assert sample.modality == reader.name
    assert sample.source == example
    assert sample.data is not None


def test_the_registry_finds_the_reader_of_the_example(reader, example):
    assert reader.reads(example)
    assert load(example, modality=reader.name).modality == reader.name
    assert load(example).modality == reader.name


def test_the_axes_and_the_units_are_known(reader, example):
    sample = reader.load(example)
    data = sample.data
    if kind(data) == "image":
        assert data.header.get_xyzt_units() == ("mm", "sec")
        if len(data.shape) == 4:
            from neuromm.io.fmri import repetition_time

            assert repetition_time(sample) > 0
    elif kind(data) == "spots":
        from neuromm.io.spatial import microns_per_pixel

        assert microns_per_pixel(data) > 0
        assert data.obsm["spatial"].shape == (data.n_obs, 2)
    elif kind(data) == "slide":
        assert data.microns_per_pixel > 0
        assert min(data.width, data.height) > 0
    else:
        assert data.info["sfreq"] > 0
        assert len(data.times) > 1
        volts_and_teslas = {107, 112, 201}  # FIFF: V, T, T/m
        units = {int(channel["unit"]) for channel in data.info["chs"]}
        assert volts_and_teslas & units


def test_samples_stay_on_disk_until_they_are_wanted(reader, example):
    assert is_on_disk(reader.load(example).data)


def test_loading_changes_no_file(reader, copy, tmp_path):
    before = digests(tmp_path)
    assert np.isfinite(values(reader.load(copy).data)).all()
    assert digests(tmp_path) == before


def test_the_same_seed_gives_the_same_samples(reader, tmp_path):
    paths = [reader.write_example(tmp_path / n, rng=s) for n, s in SEEDS]
    first, second, other = (samples_file(reader, p).read_bytes() for p in paths)
    assert first == second
    assert first != other


def test_folders_with_spaces_and_other_alphabets_are_read(reader, tmp_path):
    folder = tmp_path / "Émilie Müller 脳 данные"
    path = reader.write_example(folder)
    assert reader.load(path).source == path


def test_a_missing_file_is_said_to_be_missing(reader, example):
    gone = example.with_name("gone_" + example.name)
    with pytest.raises(InputMissingError, match="gone_"):
        reader.load(gone)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 1.0])
def test_a_cut_file_gives_one_error_that_names_it(reader, copy, share):
    file = samples_file(reader, copy)
    content = file.read_bytes()
    # The last lacks a single byte: BrainVision states no length, so that a cut between
    # two samples near the end cannot be told from a shorter recording.
    file.write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    with pytest.raises(NeurommError) as caught:
        quietly(reader, copy)
    assert file.name in str(caught.value) or copy.name in str(caught.value)


def test_a_missing_data_file_gives_an_error_that_names_it(reader, copy):
    file = samples_file(reader, copy)
    file.unlink()
    with pytest.raises(NeurommError, match=file.name):
        quietly(reader, copy)


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_in_the_header_give_a_sample_or_one_error(reader, copy, seed):
    rng = np.random.default_rng(seed)
    content = bytearray(copy.read_bytes())
    for position in rng.integers(0, min(len(content), 600), size=4):
        content[position] ^= 1 << rng.integers(8)
    copy.write_bytes(content)
    try:
        outcome = quietly(reader, copy)
    except NeurommError as error:
        outcome = error
    assert isinstance(outcome, Sample | NeurommError)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_of_chance_are_refused(reader, copy, seed):
    rng = np.random.default_rng(seed)
    copy.write_bytes(rng.bytes(copy.stat().st_size))
    with pytest.raises(NeurommError, match=copy.name):
        quietly(reader, copy)


def test_another_kind_of_file_under_this_name_is_refused(reader, copy):
    copy.write_text("subject\tage\nsub-01\t30\n" * 200)
    with pytest.raises(NeurommError, match=copy.name):
        quietly(reader, copy)
