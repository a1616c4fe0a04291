"""Epochs with artefacts are left out by their amplitude."""

import mne
import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, UsageError
from neuromm.prepare import SensorSpace, event_responses

SFREQ = 100.0


@pytest.fixture
def recording():
    """Ten events; 500 µV steps in the epochs of the third and the seventh."""
    rng = np.random.default_rng(0)
    data = 1e-6 * rng.standard_normal((2, 1200))
    events = pd.DataFrame({"onset": 1.0 + np.arange(10.0), "duration": 0.0})
    for position in (2, 6):
        first = int((events.onset[position] + 0.2) * SFREQ)
        data[1, first : first + 10] += 500e-6
    raw = mne.io.RawArray(data, mne.create_info(["Cz", "Pz"], SFREQ, "eeg"), verbose=0)
    return raw, events


def _responses(recording, reject):
    raw, events = recording
    return event_responses(
        raw, events, tmin=0.0, tmax=0.5, space=SensorSpace(raw.info), window_ms=100,
        reject=reject,
    )  # fmt: skip


def test_only_the_epochs_with_the_artefact_are_dropped(recording):
    kept = _responses(recording, {"eeg": 100e-6})
    np.testing.assert_array_equal(kept.onset, [1, 2, 4, 5, 6, 8, 9, 10])
    everything = _responses(recording, None)
    rows = everything.sel(sample=np.isin(everything.onset, kept.onset))
    np.testing.assert_array_equal(kept.to_numpy(), rows.to_numpy())


def test_a_limit_in_microvolts_keeps_everything_and_one_too_small_is_an_error(
    recording,
):
    assert _responses(recording, {"eeg": 100.0}).sizes["sample"] == 10
    with pytest.raises(DataError, match=r"10 of 10 epochs are larger.*these units"):
        _responses(recording, {"eeg": 1e-9})


def test_a_type_that_is_not_there_is_refused(recording):
    with pytest.raises(UsageError, match="type mag, and there are eeg"):
        _responses(recording, {"mag": 4e-12})
