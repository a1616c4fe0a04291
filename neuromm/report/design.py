"""The design of an analysis as rows of a table: a word, and what it was set to."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["design_rows"]

_WORDS = {
    "datatype": "data type",
    "n_samples": "samples",
    "n_targets": "targets",
    "n_features": "features",
    "n_volumes": "volumes a run",
    "n_channels": "channels",
    "n_bad_channels": "bad channels a run",
    "n_events_left_out": "events left out",
    "n_folds": "folds",
    "cv": "kind of folds",
    "standardize": "features z-scored on training data",
    "alphas": "ridge penalties (alpha)",
    "hrf": "haemodynamic response",
    "delays_volumes": "delays (volumes)",
    "trim_volumes": "volumes dropped (first, last)",
    "t_r_s": "repetition time (s)",
    "slice_time_ref": "slice time reference (part of a volume)",
    "sfreq_hz": "sampling rate (Hz)",
    "tmin_s": "epoch start (s)",
    "tmax_s": "epoch end (s)",
    "baseline_s": "baseline (s)",
    "window_ms": "window (ms)",
    "step_ms": "step (ms)",
    "high_pass_hz": "high-pass (Hz)",
    "l_freq_hz": "lowest frequency (Hz)",
    "h_freq_hz": "highest frequency (Hz)",
    "high_gamma_hz": "high gamma (Hz)",
    "notch_hz": "notch (Hz)",
    "n_permutations": "permutations",
    "block": "samples a block of the permutations",
    "scoring": "score that chose alpha",
    "n_resamples": "resamples of blocks",
    "n_bins": "time bins a site",
    "q": "false discovery rate",
}
_MANY = 8


def design_rows(design: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten settings to (name, value) in the order of ``design``.

    Nested settings carry the name of their parent; None is left out.
    """
    rows: list[tuple[str, str]] = []
    for key, value in design.items():
        unused = key == "delays_volumes" and design.get("hrf") not in {None, "fir"}
        if value is None or unused:
            continue
        if key == "feature_spaces" and isinstance(value, Mapping):
            # Names of feature spaces are the user's: kept as they are.
            for space, told in value.items():
                rows += design_rows(told, prefix=f"{space}: ")
            continue
        word = _WORDS.get(str(key), str(key).replace("_", " "))
        name = f"{prefix}{word}"
        if isinstance(value, Mapping):
            rows += design_rows(value, prefix=f"{name}: ")
        else:
            rows.append((name, _told(value)))
    return rows


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if not value:
        return "none"
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if numeric and len(value) > _MANY:
        low, high = min(value), max(value)
        return f"{len(value)} values from {low:.6g} to {high:.6g}"
    return ", ".join("none" if item is None else _told(item) for item in value)
