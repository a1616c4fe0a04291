"""EEG files: amplitudes in volts, and files that are not what their header says."""

import contextlib
import shutil

import mne
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuromm.core import DataError, InputMissingError, Sample
from neuromm.io import eeg

SFREQ = 100.0
NAMES = ["Fz", "Cz", "Oz"]


def make_raw(names=NAMES, seconds=3, kind="eeg"):
    rng = np.random.default_rng(0)
    signals = 2e-5 * rng.standard_normal((len(names), int(seconds * SFREQ)))
    return mne.io.RawArray(
        signals, mne.create_info(list(names), SFREQ, kind), verbose="error"
    )


def write_edf(folder, **options):
    path = folder / "rest.edf"
    mne.export.export_raw(path, make_raw(**options), verbose="error", overwrite=True)
    return path


def edit(path, start, field):
    content = bytearray(path.read_bytes())
    content[start : start + len(field)] = field
    path.write_bytes(bytes(content))


def set_edf_unit(path, channel, unit):
    n_channels = int(path.read_bytes()[252:256])
    edit(path, 256 + 96 * n_channels + 8 * channel, unit.ljust(8))


def cut(path, n_bytes):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - n_bytes)


def test_example_has_ten_microvolts_at_ten_hertz(tmp_path):
    sample = eeg.load(eeg.write_example(tmp_path))
    assert isinstance(sample, Sample)
    assert sample.modality == "eeg"
    raw = sample.data
    assert not raw.preload
    spectrum = np.abs(np.fft.rfft(raw.get_data()[3])) * 2 / raw.n_times
    frequencies = np.fft.rfftfreq(raw.n_times, 1 / raw.info["sfreq"])
    # Noise of 1 uV leaves 1 uV x sqrt(4 / 500) = 0.09 uV in a bin; four of that.
    assert spectrum[frequencies == 10] == pytest.approx(10e-6, abs=0.36e-6)
    assert len(raw.annotations) == 3


def test_edf_agrees_with_what_was_exported_within_half_a_step(tmp_path):
    raw = make_raw()
    loaded = eeg.load(write_edf(tmp_path)).data
    step = np.ptp(raw.get_data()) / (2**16 - 1)
    error = loaded.get_data()[:, : raw.n_times] - raw.get_data()
    assert np.abs(error).max() <= step
    assert set(loaded.get_channel_types()) == {"eeg"}


def test_a_truncated_edf_is_refused(tmp_path):
    path = write_edf(tmp_path)
    cut(path, 100)
    with pytest.raises(DataError, match=r"rest.edf: its header promises .*cut off"):
        eeg.load(path)


def test_an_edf_whose_header_lies_about_records_is_refused(tmp_path):
    path = write_edf(tmp_path)
    edit(path, 236, b"99999999")
    with pytest.raises(DataError, match="promises 99999999 data records"):
        eeg.load(path)


def test_an_edf_that_was_not_closed_is_read_to_its_end(tmp_path):
    path = write_edf(tmp_path)
    whole = eeg.load(path).data.get_data()
    edit(path, 236, b"-1      ")
    with pytest.warns(UserWarning, match=r"[Nn]umber of records"):
        np.testing.assert_array_equal(eeg.load(path).data.get_data(), whole)


def test_a_text_file_named_edf_is_refused(tmp_path):
    path = tmp_path / "rest.edf"
    path.write_text("time,Fz\n0,1\n" * 100)
    with pytest.raises(DataError, match="Is it an EDF"):
        eeg.load(path)


@pytest.mark.parametrize("unit", [b"", b"nV", b"furlong"])
def test_an_unknown_edf_unit_is_an_error_that_names_the_channel(tmp_path, unit):
    path = write_edf(tmp_path)
    set_edf_unit(path, 1, unit)
    with pytest.raises(DataError, match=rf"unknown unit of Cz \('{unit.decode()}'\)"):
        eeg.load(path)


def test_a_blank_edf_unit_is_taken_from_channels_tsv(tmp_path):
    path = write_edf(tmp_path)
    expected = eeg.load(path).data.get_data()
    set_edf_unit(path, 1, b"")
    table = tmp_path / "channels.tsv"
    rows = "".join(f"{name}\tEEG\tuV\n" for name in NAMES)
    table.write_text("name\ttype\tunits\n" + rows)
    loaded = eeg.load(path, companions={"channels": table}).data.get_data()
    np.testing.assert_allclose(loaded, expected, rtol=1e-12)


def test_degrees_in_an_edf_are_no_voltage(tmp_path):
    path = write_edf(tmp_path)
    set_edf_unit(path, 1, b"degC")
    with pytest.warns(UserWarning, match="no voltages, taken as misc: Cz"):
        raw = eeg.load(path).data
    assert raw.get_channel_types() == ["eeg", "misc", "eeg"]


def test_millivolts_and_microvolts_are_the_same_volts(tmp_path):
    path = write_edf(tmp_path)
    microvolts = eeg.load(path).data.get_data()
    for channel in range(3):
        set_edf_unit(path, channel, b"mV")
    np.testing.assert_allclose(
        eeg.load(path).data.get_data(), 1000 * microvolts, rtol=1e-12
    )


def test_a_brainvision_file_with_half_a_sample_is_refused(tmp_path):
    path = eeg.write_example(tmp_path)
    cut(tmp_path / "example_eeg.eeg", 3)
    with pytest.raises(DataError, match=r"example_eeg.eeg: .* not a whole number"):
        eeg.load(path)


def test_a_brainvision_file_that_ends_before_its_markers_is_refused(tmp_path):
    path = eeg.write_example(tmp_path)
    data = tmp_path / "example_eeg.eeg"
    cut(data, data.stat().st_size * 3 // 4)
    with pytest.raises(DataError, match=r"marker at sample 376.* has 125 samples"):
        eeg.load(path)


@pytest.mark.parametrize(
    "target", ["../outside.eeg", "/etc/passwd", "..\\outside.eeg", "C:\\secret.eeg"]
)
@pytest.mark.parametrize("key", ["DataFile", "MarkerFile"])
def test_a_header_that_leaves_its_folder_is_refused(tmp_path, key, target):
    folder = tmp_path / "recording"
    path = eeg.write_example(folder)
    shutil.copy(folder / "example_eeg.eeg", tmp_path / "outside.eeg")
    suffix = ".eeg" if key == "DataFile" else ".vmrk"
    text = path.read_text().replace(f"{key}=example_eeg{suffix}", f"{key}={target}")
    path.write_text(text)
    with pytest.raises(DataError, match=r"outside of .*recording"):
        eeg.load(path)


def test_a_header_without_its_samples_is_missing_input(tmp_path):
    path = eeg.write_example(tmp_path)
    (tmp_path / "example_eeg.eeg").unlink()
    with pytest.raises(InputMissingError, match=r"DataFile=example_eeg.eeg"):
        eeg.load(path)


def test_the_sample_file_of_brainvision_points_to_its_header(tmp_path):
    path = eeg.write_example(tmp_path)
    with pytest.raises(DataError, match=r"open its header example_eeg.vhdr"):
        eeg.load(path.with_suffix(".eeg"))


def test_an_unknown_brainvision_unit_is_an_error_that_names_the_channel(tmp_path):
    path = eeg.write_example(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("µV", "pints"))
    with pytest.raises(DataError, match=r"unknown unit of Fz \('pints'\), Cz"):
        eeg.load(path)


def test_a_truncated_eeglab_file_is_refused(tmp_path):
    from scipy.io import savemat

    names = np.array([[(name,)] for name in NAMES], dtype=[("labels", "O")])
    content = {
        "setname": "rest",
        "nbchan": 3,
        "trials": 1,
        "pnts": 200,
        "srate": SFREQ,
        "xmin": 0.0,
        "xmax": 1.99,
        "data": "rest.fdt",
        "chanlocs": names.T,
        "event": np.zeros((0, 0)),
        "chaninfo": {"nosedir": "+X"},
    }
    path = tmp_path / "rest.set"
    savemat(path, {"EEG": content}, appendmat=False)
    samples = np.arange(600, dtype="<f4")
    (tmp_path / "rest.fdt").write_bytes(samples.tobytes())
    loaded = eeg.load(path).data.get_data()
    # Channel-fastest order, microvolts.
    np.testing.assert_allclose(loaded, 1e-6 * samples.reshape(200, 3).T, rtol=1e-6)
    cut(tmp_path / "rest.fdt", 4)
    with pytest.raises(DataError, match=r"rest.fdt: .*2400 bytes.* has 2396"):
        eeg.load(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_matlab_file_is_accepted_and_a_cut_one_is_not(tmp_path, compressed):
    from scipy.io import savemat
    from scipy.sparse import csc_array

    from neuromm.io.mat_files import check_mat_file

    path = tmp_path / "content.mat"
    content = {
        "numbers": np.arange(6.0).reshape(2, 3) + 1j,
        "nested": {"text": "µV", "list": [1, {"empty": np.zeros((0, 0))}], "none": ""},
        "sparse": csc_array(np.eye(3)),
        "mixed": np.array(["a", 1], dtype=object),
        "flag": np.array([True]),
    }
    savemat(path, content, do_compression=compressed)
    check_mat_file(path)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"content.mat: is a damaged MATLAB file"):
            check_mat_file(path)


def test_a_matlab_file_that_would_crash_scipy_is_refused(tmp_path):
    """A field that claims 4 GB: SciPy takes the process down with it."""
    from scipy.io import savemat

    path = tmp_path / "rest.set"
    savemat(path, {"EEG": {"setname": "rest", "nbchan": 3.0}}, appendmat=False)
    content = bytearray(path.read_bytes())
    place = content.index(b"setname")
    following = content.index((14).to_bytes(4, "little"), place)
    content[following + 4 : following + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="larger than the whole"):
        eeg.load(path)


def test_an_empty_file_is_refused(tmp_path):
    for name in ("a.edf", "a.vhdr", "a.set", "a.fif", "a.gdf", "a.cnt"):
        path = tmp_path / name
        path.touch()
        with pytest.raises(DataError, match=f"{name}: is empty"):
            eeg.load(path)


def test_a_file_that_is_not_there_is_missing_input(tmp_path):
    with pytest.raises(InputMissingError, match=r"rest.edf"):
        eeg.load(tmp_path / "rest.edf")


def test_a_recording_without_eeg_says_what_it_has(tmp_path):
    path = tmp_path / "rest_raw.fif"
    make_raw(kind="seeg").save(path, verbose="error")
    with pytest.raises(DataError, match=r"needs a channel of type eeg, found 3 seeg"):
        eeg.load(path)


def test_channels_tsv_that_names_other_channels_is_refused(tmp_path):
    path = write_edf(tmp_path)
    table = tmp_path / "channels.tsv"
    table.write_text("name\ttype\tunits\nFz\tEEG\tuV\nCz\tEEG\tuV\nPz\tEEG\tuV\n")
    with pytest.raises(DataError, match="the table names Pz, the recording Oz"):
        eeg.load(path, companions={"channels": table})


def test_an_unknown_unit_in_channels_tsv_is_refused(tmp_path):
    path = write_edf(tmp_path)
    table = tmp_path / "channels.tsv"
    table.write_text("name\ttype\tunits\nFz\tEEG\tMV\n")
    with pytest.raises(DataError, match=r"unknown unit of Fz \('MV'\)"):
        eeg.load(path, companions={"channels": table})


def test_types_and_bad_channels_come_from_channels_tsv(tmp_path):
    path = write_edf(tmp_path)
    table = tmp_path / "channels.tsv"
    table.write_text(
        "name\ttype\tunits\tstatus\n"
        "Oz\tEOG\tuV\tgood\nFz\tEEG\tuV\tbad\nCz\tMISC\tn/a\tgood\n"
    )
    raw = eeg.load(path, companions={"channels": table}).data
    assert raw.get_channel_types() == ["eeg", "misc", "eog"]
    assert raw.info["bads"] == ["Fz"]


def test_a_sidecar_of_another_sampling_frequency_is_refused(tmp_path):
    path = write_edf(tmp_path)
    with pytest.raises(DataError, match=r"100 Hz, but its JSON .* 250"):
        eeg.load(path, metadata={"SamplingFrequency": 250})


def test_what_the_caller_knows_goes_through(tmp_path):
    path = write_edf(tmp_path)
    entities, metadata = {"subject": "07"}, {"PowerLineFrequency": 60}
    sample = eeg.load(path, entities=entities, metadata=metadata, companions={})
    assert (sample.entities, sample.metadata) == (entities, metadata)
    assert sample.data.info["line_freq"] == 60
    assert sample.source == path


def test_every_format_is_one_that_mne_reads():
    from mne.io._read_raw import _get_supported

    assert set(eeg.READER.extensions) <= set(_get_supported())


def test_reading_leaves_the_folder_as_it_was(tmp_path):
    path = eeg.write_example(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    eeg.load(path).data.load_data().filter(1, 40, verbose="error")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["rest.edf", "example_eeg.vhdr", "rest_eeg.fif"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_header_gives_a_recording_or_a_data_error(tmp_path, name, data):
    if name == "rest.edf":
        path = write_edf(tmp_path)
    elif name == "rest_eeg.fif":
        path = tmp_path / name
        make_raw().save(path, overwrite=True, verbose="error")
    else:
        path = eeg.write_example(tmp_path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 1500) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    # Any other exception fails the test.
    with contextlib.suppress(DataError, InputMissingError):
        assert eeg.load(path).data.n_times > 0
