"""What predictions of expression were made with: unit, encoder, training, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuromm.core import UsageError
from neuromm.models import ModelCard
from neuromm.report.design import design_rows
from neuromm.report.sidecars import plain

__all__ = ["REFERENCES", "ExpressionSettings", "card_content"]

REFERENCES = (
    "Chung Y et al. (2024). Accurate spatial gene expression prediction by integrating "
    "multi-resolution features. CVPR.",
    "Moran PAP (1950). Notes on continuous stochastic phenomena. Biometrika 37, 17-23.",
    "Si et al. (2026). FLAG: foundation model representation with latent diffusion "
    "alignment via graph for spatial gene expression prediction. ICML, "
    "arXiv:2605.18055.",
)

_NEEDED = ("model", "encoder", "is_stand_in", "log_base", "library", "target_sum")
# What a page shows in other places than its settings.
_SHOWN = {
    *_NEEDED, "notice", "versions", "trained_on", "trained_patients", "patient",
    "panel", "warnings", "findings", "smoothed", "smoothed_training", "n_highly",
    "highly_chosen_on",
}  # fmt: skip
_LOGARITHMS = {"e": "ln", "2": "log2", "10": "log10"}
_LIBRARIES = {"panel": "the panel", "all": "all genes"}
_PER = {1e4: "CP10k", 1e6: "CPM"}
_N_NAMES = 12


@dataclass(frozen=True)
class ExpressionSettings:
    """What ``uns["neuromm"]["express"]`` or the settings of a run tell.

    Attributes
    ----------
    told : mapping
        As JSON holds it.
    """

    told: Mapping[str, Any]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "ExpressionSettings":
        """Read a mapping, also as an ``.h5ad`` gives it back.

        Raises
        ------
        UsageError
            If a setting is missing that a reader cannot do without, or unknown.
        """
        settings: dict[str, Any] = plain(dict(told))
        if missing := [name for name in _NEEDED if settings.get(name) is None]:
            raise UsageError(
                "a report of predicted expression must be told the model, its encoder "
                f"and the unit; missing: {', '.join(missing)}"
            )
        settings["log_base"] = str(settings["log_base"])
        if (
            settings["log_base"] not in _LOGARITHMS
            or settings["library"] not in _LIBRARIES
        ):
            raise UsageError(
                f"log_base must be one of {', '.join(_LOGARITHMS)} and library one of "
                f"{', '.join(_LIBRARIES)}, got {settings['log_base']!r} and "
                f"{settings['library']!r}"
            )
        return cls(settings)

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.told["model"])

    @property
    def encoder(self) -> str:
        """Name of the patch encoder; one that is a stand-in says so."""
        return str(self.told["encoder"]) + (" (stand-in)" if self.is_stand_in else "")

    @property
    def is_stand_in(self) -> bool:
        """Whether the encoder stands in for a trained one."""
        return bool(self.told["is_stand_in"])

    @property
    def unit(self) -> str:
        """Of expression, short, such as "ln(1 + CP10k)"."""
        logarithm = _LOGARITHMS[self.told["log_base"]]
        total = float(self.told["target_sum"])
        return f"{logarithm}(1 + {_PER.get(total, f'counts per {total:,.10g}')})"

    @property
    def unit_meaning(self) -> str:
        """The unit in a sentence."""
        total = float(self.told["target_sum"])
        base = self.told["log_base"]
        short = f" ({_PER[total]})" if total in _PER else ""
        smoothed = self.told.get("smoothed")
        text = (
            f"Expression is {self.unit}: a gene's counts per {total:,.10g} counts of "
            f"{_LIBRARIES[self.told['library']]} at the same spot{short}, plus 1, as "
            f"{'natural' if base == 'e' else 'base-' + base} logarithm."
        )
        if smoothed:
            text += (
                " What was measured is the mean over a spot and its neighbours, so "
                "correlations are higher than those of single spots."
            )
        return text

    @property
    def mark(self) -> str:
        """What has to be said in each figure."""
        marks = []
        if self.is_stand_in:
            marks.append(
                f"stand-in encoder {self.told['encoder']}: no result of {self.model} "
                "as published"
            )
        if self.told.get("notice"):
            marks.append(str(self.told["notice"]))
        return "; ".join(marks)

    @property
    def notices(self) -> list[str]:
        """What every reader has to know first."""
        notices = []
        if self.is_stand_in:
            notices.append(
                f"STAND-IN: the encoder {self.told['encoder']} stands in for a trained "
                f"patch encoder. The numbers are no result of {self.model} as "
                "published."
            )
        if self.told.get("notice"):
            notices.append(str(self.told["notice"]))
        return notices

    @property
    def trained_on(self) -> list[str]:
        """Names of the sections that were trained on."""
        return _names(self.told.get("trained_on"))

    @property
    def patient(self) -> str:
        """Patient of the section; "" if not told."""
        return str(self.told.get("patient") or "")

    @property
    def panel(self) -> list[str]:
        """Genes, or the name of the panel."""
        return _names(self.told.get("panel"))

    @property
    def version(self) -> str:
        """Of neuromm."""
        versions = self.told.get("versions") or {}
        return str(versions.get("neuromm") or "of unknown version")

    def training_rows(self, *, several: bool = False) -> list[tuple[str, str]]:
        """What the model was trained on, as rows of a table; of several sections."""
        sections = self.trained_on
        patients = _names(self.told.get("trained_patients"))
        listed = f"{len(sections)}: {', '.join(sections)}" if sections else "not said"
        apart = ", less those that a fold left out" if several else ""
        rows = [
            ("Model", self.model),
            ("Patch encoder", self.encoder),
            (f"Sections trained on{apart}", listed),
        ]
        if patients:
            rows.append((f"Patients trained on{apart}", ", ".join(patients)))
        if self.told.get("smoothed_training"):
            rows.append(("Trained to predict", "means over a spot and its neighbours"))
        if self.patient and not several:
            rows.append(("Patient of this section", self.patient))
        if self.panel:
            shown = ", ".join(self.panel[:_N_NAMES])
            shown += ", …" if len(self.panel) > _N_NAMES else ""
            many = f"{len(self.panel)} genes: {shown}"
            rows.append(("Panel", shown if len(self.panel) == 1 else many))
        rows.append(("Unit", self.unit))
        return rows

    def provenance(self) -> dict[str, Any]:
        """Versions, and all settings that are shown nowhere else."""
        rest = {k: v for k, v in self.told.items() if k not in _SHOWN}
        versions = self.told.get("versions") or {}
        return {
            "versions": sorted((str(k), str(v)) for k, v in versions.items()),
            "settings": design_rows(rest),
        }

    def methods(self, *, scored: bool, with_ridge: bool = False) -> list[str]:
        """How expression was predicted and judged, in paragraphs."""
        paragraphs = [
            f"The expression of genes at each spot was predicted from the stained "
            f"section by {self.model}, on features of the frozen patch encoder "
            f"{self.encoder}. Measured expression was used in training alone. "
            + self.unit_meaning
        ]
        if scored:
            paragraphs.append(
                "Predictions were compared with what was measured at the same spots, a "
                "section at a time: Pearson correlation of each gene over spots, its "
                "mean over genes, PCC(A), and over the genes that are predicted best, "
                "PCC(H) (Chung et al. 2024); squared and absolute errors; the "
                "correlation, over pairs of genes, of predicted with measured "
                "correlations between genes (GSC); and the correlation, over genes, of "
                "predicted with measured Moran's I (SSC; Moran 1950). A gene that does "
                "not vary in a section, measured or predicted, has no correlation; it "
                "was counted and left out."
                + (
                    " The ridge probe, a ridge regression on the same features fitted "
                    "on the same sections, is the linear baseline."
                    if with_ridge
                    else ""
                )
            )
            paragraphs.append(
                "Correlations depend on the panel of genes, on smoothing and on what "
                "was left out in training; compare them only where all three are the "
                "same. The names GSC and SSC are those of Si et al. (2026), the "
                "formulae are ours: values are not comparable with theirs."
            )
        return paragraphs


def card_content(card: ModelCard) -> dict[str, Any]:
    """A model card as the templates show it."""
    told: Sequence[tuple[str, Any]] = (
        ("task", card.task),
        ("reference", card.reference),
        ("departures", card.departures),
        ("weights", card.weights),
    )
    return {
        "title": f"{card.name}: {card.title}",
        "facts": [
            (name, value if isinstance(value, str) else "; ".join(value))
            for name, value in told
            if value
        ],
        "limits": list(card.limits),
    }


def _names(value: Any) -> list[str]:
    if value is None or (isinstance(value, str) and not value):
        return []
    if isinstance(value, str):
        return [value]
    return [str(one) for one in np.ravel(np.asarray(value, dtype=object))]
