"""Maps of sites as they lie on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core import DataError
from neuromm.core.files import read_json

__all__ = ["MappedSites", "read_sites"]

_FOR_DESIGN = (
    "multimodal", "unimodal", "controls", "n_resamples", "block", "n_bins", "over_time",
    "q", "correction", "confidence", "protocol", "min_bins",
)  # fmt: skip


@dataclass(frozen=True)
class MappedSites:
    """The sites of one unit.

    Attributes
    ----------
    path : Path
        The table.
    sidecar : mapping
        Its JSON.
    """

    path: Path
    sidecar: Mapping[str, Any]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a target; "n/a" as nan, ``is_site`` as bool."""
        try:
            table = pd.read_csv(
                self.path,
                sep="\t",
                na_values=["n/a"],
                keep_default_na=False,
                dtype={"target": str, "region": str, "is_site": str},
            )
        except (ValueError, OSError) as error:
            raise DataError(f"is not a table of sites ({error})", self.path) from error
        missing = [c for c in ("target", "gain", "q", "is_site") if c not in table]
        if missing:
            raise DataError(
                f"a table of sites needs the columns {', '.join(missing)}", self.path
            )
        table["is_site"] = table["is_site"] == "true"
        return table

    @cached_property
    def regions(self) -> pd.DataFrame | None:
        """Counts a region; None where targets carry no regions."""
        path = self.path.with_name(self.path.name.replace("_scores.", "_regions."))
        return pd.read_csv(path, sep="\t", na_values="n/a") if path.exists() else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """How sites were found."""
        settings: Mapping[str, Any] = self.sidecar.get("Sites") or {}
        return settings

    @property
    def summary(self) -> Mapping[str, Any]:
        """Counts and scores."""
        summary: Mapping[str, Any] = self.sidecar.get("Summary") or {}
        return summary

    @property
    def warnings(self) -> list[str]:
        """What the map itself warns of."""
        return [str(text) for text in self.sidecar.get("Warnings") or []]

    @property
    def design(self) -> dict[str, Any]:
        """Settings that the methods paragraph and the table of the design tell."""
        return {
            name: self.settings[name] for name in _FOR_DESIGN if name in self.settings
        }


def read_sites(scores: Path) -> MappedSites | None:
    """Sites of the unit of a score table; None where none were mapped.

    Raises
    ------
    neuromm.core.DataError
        If the sidecar is missing or damaged.
    """
    path = scores.with_name(
        scores.name.replace("_desc-encoding_", "_desc-multimodalsites_")
    )
    if not path.exists():
        return None
    sidecar = path.with_suffix(".json")
    if not sidecar.exists():
        raise DataError(
            f"its sidecar {sidecar.name} is missing; encode the unit again", path
        )
    return MappedSites(path, read_json(sidecar))
