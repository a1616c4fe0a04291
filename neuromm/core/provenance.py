"""What a result was computed with."""

import hashlib
import json
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

__all__ = ["Provenance", "config_digest", "package_versions", "peak_memory"]

_PACKAGES = (
    "neuromm", "numpy", "scipy", "pandas", "xarray", "scikit-learn", "torch",
    "nibabel", "nilearn", "mne", "mne-bids", "ancpbids",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Versions, settings and inputs of a computation.

    Attributes
    ----------
    versions : mapping of str to str
        Package name to version, Python included.
    config : mapping
        Every setting that can change a number.
    seed : int or None
        Seed of the random numbers.
    inputs : mapping of str to str
        File (relative to its dataset) to SHA-256.
    device : str
        ``"cpu"`` or a CUDA device.
    wall_time : float or None
        Seconds.
    peak_memory : int or None
        Highest resident memory of the process, in bytes.
    """

    versions: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    wall_time: float | None = None
    peak_memory: int | None = None

    def to_dict(self, *, volatile: bool = True) -> dict[str, Any]:
        """As a JSON object.

        Parameters
        ----------
        volatile : bool
            Keep wall time and peak memory, which differ from run to run. Files that
            must have the same bytes after a restart leave them out.
        """
        content: dict[str, Any] = {
            "versions": dict(self.versions),
            "config": dict(self.config),
            "seed": self.seed,
            "inputs": dict(self.inputs),
            "device": self.device,
        }
        if volatile:
            content["wall_time_s"] = self.wall_time
            content["peak_memory_bytes"] = self.peak_memory
        return content


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on.

    A package that is not installed is left out.
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, independent of the order of its keys."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
