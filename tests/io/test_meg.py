"""MEG files: amplitudes in tesla, and FIF files that break off."""

import gzip

import mne
import numpy as np
import pytest

from neuromm.core import DataError
from neuromm.io import meg


def cut(path, n_bytes):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - n_bytes)


def test_example_has_one_picotesla_at_ten_hertz(tmp_path):
    sample = meg.load(meg.write_example(tmp_path))
    raw = sample.data
    assert sample.modality == "meg"
    assert not raw.preload
    assert raw.get_channel_types() == ["mag"] * 3
    spectrum = np.abs(np.fft.rfft(raw.get_data()[0])) * 2 / raw.n_times
    frequencies = np.fft.rfftfreq(raw.n_times, 1 / raw.info["sfreq"])
    # Noise of 0.1 pT leaves 0.1 pT x sqrt(4 / 500) in a bin; four of that.
    assert spectrum[frequencies == 10] == pytest.approx(1e-12, abs=3.6e-14)


def test_sensors_of_the_example_lie_on_a_helmet(tmp_path):
    raw = meg.load(meg.write_example(tmp_path)).data
    radii = [np.linalg.norm(ch["loc"][:3]) for ch in raw.info["chs"]]
    np.testing.assert_allclose(radii, 0.11)


def test_a_gzipped_recording_is_the_recording(tmp_path):
    path = meg.write_example(tmp_path)
    packed = tmp_path / "packed_meg.fif.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(
        meg.load(packed).data.get_data(), meg.load(path).data.get_data()
    )


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_fif_is_refused_wherever_it_was_cut(tmp_path, share):
    path = meg.write_example(tmp_path)
    cut(path, int(path.stat().st_size * (1 - share)) or 1)
    with pytest.raises(DataError, match=r"chain of tags breaks off .*cut off"):
        meg.load(path)


def test_a_fif_that_lost_its_last_byte_is_refused(tmp_path):
    path = meg.write_example(tmp_path)
    cut(path, 1)
    with pytest.raises(DataError, match="chain of tags breaks off"):
        meg.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_gzip_is_refused(tmp_path, share):
    path = meg.write_example(tmp_path)
    packed = gzip.compress(path.read_bytes())
    broken = tmp_path / "broken_meg.fif.gz"
    broken.write_bytes(packed[: int(len(packed) * share)])
    with pytest.raises(DataError, match=r"broken_meg.fif.gz: is no whole gzip file"):
        meg.load(broken)


def test_a_fif_without_samples_is_refused(tmp_path):
    path = tmp_path / "some-eve.fif"
    mne.write_events(path, np.array([[1, 0, 1]]), verbose="error")
    with pytest.raises(DataError, match=r"some-eve.fif: cannot be read"):
        meg.load(path)


def test_a_channel_of_unknown_unit_is_refused(tmp_path):
    path = meg.write_example(tmp_path)
    content = bytearray(path.read_bytes())
    # In the record of a channel the unit stands eight bytes before the name.
    place = content.index(b"MEG0111") - 8
    assert int.from_bytes(content[place : place + 4], "big") == 112  # tesla
    content[place : place + 4] = (9999).to_bytes(4, "big")
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="type or unit MNE does not know"):
        meg.load(path)


def test_a_split_recording_whose_next_part_is_missing_is_refused(tmp_path):
    whole = meg.load(meg.write_example(tmp_path)).data.load_data()
    signals = np.tile(whole.get_data(), (1, 350))
    long = mne.io.RawArray(signals, whole.info, verbose="error")
    long.save(
        tmp_path / "long_meg.fif",
        split_size="2MB",
        buffer_size_sec=1.0,
        verbose="error",
    )
    parts = sorted(tmp_path.glob("long_meg*.fif"))
    assert len(parts) > 1
    assert meg.load(tmp_path / "long_meg.fif").data.n_times == long.n_times
    parts[0 if parts[0].name != "long_meg.fif" else 1].unlink()
    with pytest.raises(DataError, match=r"long_meg.fif: cannot be read"):
        meg.load(tmp_path / "long_meg.fif")


def test_a_recording_without_meg_says_what_it_has(tmp_path):
    raw = mne.io.RawArray(
        np.zeros((2, 100)), mne.create_info(2, 100.0, "eeg"), verbose="error"
    )
    raw.save(tmp_path / "rest_meg.fif", verbose="error")
    with pytest.raises(DataError, match=r"type mag or grad, found 2 eeg"):
        meg.load(tmp_path / "rest_meg.fif")


def test_every_format_is_one_that_mne_reads():
    from mne.io._read_raw import _get_supported

    assert set(meg.READER.extensions) <= set(_get_supported())


def test_no_format_of_mne_is_forgotten():
    """The rest holds eye tracking, light through the skull, or no channel types."""
    from mne.io._read_raw import _get_supported

    from neuromm.io import eeg, ieeg

    ours = {e for m in (eeg, meg, ieeg) for e in m.READER.extensions}
    others = {".hdr", ".snirf", ".txt", ".asc", ".mat"}
    assert set(_get_supported()) - ours == others
