"""The design of an analysis as rows of a table: a word, and what it was set to."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["design_rows"]

_WORDS = {
    "feature_spaces": "feature spaces",
    "n_samples": "samples",
    "n_targets": "targets",
    "n_features": "features",
    "n_folds": "folds",
    "alphas": "ridge penalties (alpha)",
    "hrf": "haemodynamic response",
    "t_r": "repetition time (s)",
    "tmin": "epoch start (s)",
    "tmax": "epoch end (s)",
    "window_ms": "window (ms)",
    "step_ms": "step (ms)",
    "high_pass": "high-pass (Hz)",
    "band_pass": "band-pass (Hz)",
    "high_gamma": "high gamma (Hz)",
    "notch": "notch (Hz)",
    "trim": "volumes dropped (first, last)",
    "standardize": "z-scored within runs",
    "n_permutations": "permutations",
    "datatype": "data type",
}
_MANY = 8


def design_rows(design: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten settings to (name, value) in the order of ``design``.

    Nested settings carry the name of their parent; None is left out.
    """
    rows: list[tuple[str, str]] = []
    for key, value in design.items():
        if value is None:
            continue
        word = _WORDS.get(str(key), str(key).replace("_", " "))
        name = f"{prefix}{word}"
        if isinstance(value, Mapping):
            # Names of feature spaces are the user's: kept as they are.
            inner = f"{key}: " if prefix and key not in _WORDS else f"{name}: "
            rows += design_rows(value, prefix=inner)
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
