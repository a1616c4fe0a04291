"""What can change a number of ``neuromm encode``, apart from the data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuromm.core.errors import UsageError

__all__ = [
    "BoldSettings",
    "EpochSettings",
    "ModelSettings",
    "SiteSettings",
    "as_json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoldSettings:
    """From BOLD volumes to samples."""

    hrf: Literal["spm", "glover", "fir"] = "spm"
    delays: tuple[int, ...] = (1, 2, 3, 4)  # volumes, used with hrf="fir" alone
    high_pass: float = 1 / 128  # Hz, as in SPM; 0 for none
    confounds: tuple[str, ...] = ()
    trim: tuple[int, int] = (0, 0)  # volumes left out at the start and end of a run
    slice_time_ref: float = 0.5  # fMRIPrep's reference slice, as a part of the TR
    mask: Path | None = None

    def __post_init__(self) -> None:
        if self.hrf == "fir" and (not self.delays or min(self.delays) < 0):
            raise UsageError(
                f"--delays must be volumes after the event (>= 0), got {self.delays}"
            )
        if self.high_pass < 0 or min(self.trim) < 0:
            raise UsageError("--high-pass and --trim must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSettings:
    """From continuous EEG, MEG or iEEG to epochs in time bins."""

    tmin: float = -0.2  # s from the event
    tmax: float = 0.8
    baseline: tuple[float, float] | None = None  # s; None leaves epochs as they are
    window_ms: float = 50.0
    step_ms: float = 25.0
    reference: Literal["none", "average", "bipolar", "laplacian"] = "none"
    line_freq: float | None = None  # Hz; None takes the recording's own
    notch: bool = True
    l_freq: float | None = 0.1  # Hz
    h_freq: float | None = None
    high_gamma: tuple[float, float] | None = None  # Hz
    # Channel type to the largest peak-to-peak amplitude of an epoch (V, T, T/m).
    reject: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tmin >= self.tmax:
            raise UsageError(
                f"--tmin must lie before --tmax, got {self.tmin} and {self.tmax} s"
            )
        if self.window_ms <= 0 or self.step_ms <= 0:
            raise UsageError("--window-ms and --step-ms must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """From features and responses to scores."""

    alphas: tuple[float, ...] = tuple(np.logspace(-1, 7, 17).tolist())
    scoring: Literal["r2", "correlation", "mse"] = "r2"
    folds: int | None = None  # None: one run a fold, five blocks where there is one run
    joint: bool = True
    n_permutations: int = 1000
    block: int | None = None  # samples; None: 10, or 20 s of volumes
    seed: int = 0
    atlas: str = "auto"
    atlas_distance_mm: float = 5.0
    save: tuple[str, ...] = ()  # "predictions"

    def __post_init__(self) -> None:
        if not self.alphas or min(self.alphas) <= 0:
            raise UsageError(f"--alphas must be positive, got {self.alphas}")
        if self.folds is not None and self.folds < 2:
            raise UsageError(f"--folds must be at least 2, got {self.folds}")
        if self.n_permutations < 0:
            raise UsageError("--n-permutations must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """Which models a site of multimodal integration is judged by, and how."""

    protocol: Literal["default", "subramaniam2024"] = "default"
    multimodal: str = "joint"
    unimodal: tuple[str, ...] = ()  # empty: all spaces that are named nowhere else
    controls: tuple[str, ...] = ()
    n_resamples: int = 1000
    over_time: Literal["mean", "max", "cluster"] = "mean"
    correction: Literal["bh", "by"] = "bh"
    q: float = 0.05
    block: int | None = None  # events; None: by the autocorrelation of the responses

    def __post_init__(self) -> None:
        if self.n_resamples < 100:
            raise UsageError(
                f"--n-resamples must be 100 or more, got {self.n_resamples}"
            )
        if self.block is not None and self.block < 1:
            raise UsageError(f"--sites-block must be 1 or more, got {self.block}")


def as_json(
    settings: BoldSettings | EpochSettings | ModelSettings | SiteSettings,
) -> dict[str, Any]:
    """Settings as a JSON object; paths by name, so that a moved data set matches."""
    content = asdict(settings)
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in content.items()
    }
