"""Where a recording was interrupted, and where it is marked as bad.

Samples on the two sides of an interruption are neighbours in the file and not in
time: no filter and no epoch may cross it. Interruptions are marked by annotations:
``EDGE boundary`` and ``BAD boundary`` (concatenated by MNE), ``boundary`` (cut out in
EEGLAB), ``New Segment`` (recording paused, BrainVision), and ``BAD_ACQ_SKIP`` (nothing
was stored, MEGIN).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bad_spans", "recording_segments"]

# Cuts are points whatever their duration: EEGLAB writes there the length of the data
# that were removed, which are no longer in the file.
_CUTS = ("edge", "bad boundary", "boundary", "new segment")
_UNSTORED = ("bad_acq_skip",)

# A cut lies between two samples; rounding of times must not move it by one.
_SLACK_SAMPLES = 1e-3


def recording_segments(raw: Any) -> NDArray[np.int64]:
    """Stretches without an interruption.

    Parameters
    ----------
    raw : mne.io.BaseRaw

    Returns
    -------
    segments : array of shape (n_segments, 2)
        First sample and the one past the last, counted from the first sample of
        ``raw``; ascending, not overlapping. Spans that were not stored are in none.
    """
    n_times = int(raw.n_times)
    unstored = _spans(raw, _UNSTORED)
    cuts = np.concatenate([[0, n_times], _spans(raw, _CUTS)[:, 0], unstored.ravel()])
    cuts = np.unique(np.clip(cuts, 0, n_times))
    segments = np.column_stack([cuts[:-1], cuts[1:]])
    lost = (segments[:, :1] >= unstored[:, 0]) & (segments[:, 1:] <= unstored[:, 1])
    kept: NDArray[np.int64] = segments[~lost.any(axis=1)]
    return kept


def bad_spans(raw: Any) -> NDArray[np.int64]:
    """Stretches that an annotation beginning with ``BAD`` marks.

    Parameters
    ----------
    raw : mne.io.BaseRaw

    Returns
    -------
    spans : array of shape (n_spans, 2)
        First sample and the one past the last, at least one sample long; they may
        overlap and leave the recording. A span marked for some channels alone counts
        for all, as in MNE.
    """
    bads = _spans(raw, ("bad",), but=("bad boundary",))
    ends = np.maximum(bads[:, 1], bads[:, 0] + 1)
    return np.column_stack([bads[:, 0], ends])


def _spans(
    raw: Any, kinds: tuple[str, ...], but: tuple[str, ...] = ()
) -> NDArray[np.int64]:
    # After set_annotations, onsets count from the same zero as raw.first_time.
    spans = [
        (onset, onset + duration)
        for onset, duration, description in zip(
            raw.annotations.onset - raw.first_time,
            raw.annotations.duration,
            raw.annotations.description,
            strict=True,
        )
        if description.lower().startswith(kinds)
        and not (but and description.lower().startswith(but))
    ]
    samples = np.array(spans, dtype=float).reshape(-1, 2) * raw.info["sfreq"]
    rounded: NDArray[np.int64] = np.ceil(samples - _SLACK_SAMPLES).astype(np.int64)
    return rounded
