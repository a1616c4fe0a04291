"""``neuromm segment predict``: the discs of scans, as BIDS derivatives and reports."""

import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuromm.core.errors import DataError, InputMissingError, UsageError
from neuromm.core.files import file_digest, read_json, remove_leftovers
from neuromm.core.provenance import Provenance, package_versions
from neuromm_pipelines.outcomes import (
    Outcome,
    Status,
    exit_code,
    log_run,
    outcome_of,
    summary,
)
from neuromm_pipelines.segment_scans import Scan, open_scans, turned
from neuromm_pipelines.segment_settings import SegmentSettings, read_settings

__all__ = ["Config", "regions_path", "run", "written_reports"]

logger = logging.getLogger(__name__)

# Voxels may differ from those of training by this factor before a reader is warned.
_OTHER_SPACING = 1.3


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``neuromm segment predict`` was asked to do."""

    data: Path
    output_dir: Path
    model: Path | None
    layout: str = "auto"
    participant_label: tuple[str, ...] | None = None
    labels: Path | None = None
    resample_to: str | None = None
    persons: Path | None = None
    uncertainty: Literal["none", "flips", "dropout"] = "none"
    smallest_mm3: float = 300.0
    overwrite: bool = False
    seed: int = 0
    device: str = "auto"
    nthreads: int | None = None
    debug: bool = False
    command_line: str = field(default="", compare=False)


def run(config: Config) -> int:
    """Find the discs of every scan; one that fails does not stop the others.

    Returns
    -------
    exit_code : int
        0 if every scan is done; 1 if some failed; the common code if all failed alike.

    Raises
    ------
    neuromm.core.NeurommError
        If the model, the data set or a setting is wrong.
    """
    import torch

    from neuromm.models import IVDNet
    from neuromm.report import prepare_segmentation
    from neuromm_pipelines.devices import chosen_device

    started = time.monotonic()
    if config.model is None:
        raise UsageError("--model is needed: a folder that neuromm segment fit wrote")
    if not config.smallest_mm3 >= 0:
        raise UsageError(
            f"--smallest-mm3 must be 0 or above, got {config.smallest_mm3}"
        )
    settings = read_settings(config.model)
    model = IVDNet.from_pretrained(config.model)
    _check_looks(config, settings, model)
    _, cuda = chosen_device(config.device, "torch")
    if config.nthreads:
        torch.set_num_threads(config.nthreads)
    model.to(cuda or "cpu")
    scans, _, _ = open_scans(
        config.data,
        layout=config.layout,
        modalities=settings.modalities,
        participant_label=config.participant_label,
        labels=config.labels,
        resample_to=config.resample_to,
        persons=config.persons,
    )
    prepare_segmentation(config.output_dir, config.data)
    remove_leftovers(config.output_dir)
    worker = _Worker(config, settings, model, str(cuda or "cpu"))
    ended = _each(scans, worker, config)
    ended += written_reports(config.output_dir, ended)
    if any(outcome.status == "done" for outcome in ended):
        wall_time = time.monotonic() - started
        log_run(config.output_dir, config.command_line, ended, wall_time)
    for outcome in ended:
        if outcome.status == "failed":
            print(f"neuromm segment: error: {outcome.message}", file=sys.stderr)
    of_scans = [outcome for outcome in ended if not outcome.name.endswith(" report")]
    print(f"neuromm segment: {summary(of_scans)}")
    return exit_code(ended)


def regions_path(output_dir: Path, scan: Scan) -> Path:
    """Sidecar of the table of discs of a scan, which is written last."""
    folder = output_dir / f"sub-{scan.entities['subject']}"
    if "session" in scan.entities:
        folder /= f"ses-{scan.entities['session']}"
    return folder / "anat" / f"{scan.name}_space-orig_desc-disc_regions.json"


def written_reports(output_dir: Path, ended: Sequence[Outcome]) -> list[Outcome]:
    """Write the report of each subject with a scan that was done, or without one."""
    from neuromm.report import write_segment_report

    wanted = {
        one.subject
        for one in ended
        if one.status == "done"
        or (
            one.status == "skipped"
            and not (output_dir / f"sub-{one.subject}.html").is_file()
        )
    }
    reports = []
    for subject in sorted(wanted):

        def report(subject: str = subject) -> Status:
            write_segment_report(output_dir, subject)
            return "done"

        reports.append(
            outcome_of(
                f"sub-{subject} report",
                report,
                output_dir=output_dir,
                omp_nthreads=None,
                debug=False,
            )
        )
    return [one for one in reports if one.status == "failed"]


@dataclass(frozen=True)
class _Worker:
    """Finds the discs of one scan."""

    config: Config
    settings: SegmentSettings
    model: Any
    device: str

    def told(self, scan: Scan) -> dict[str, Any]:
        """Settings by which a finished scan is known again."""
        model = self.config.model or Path()
        return {
            "modalities": list(self.settings.modalities),
            "available": list(scan.modalities),
            "uncertainty": self.config.uncertainty,
            "seed": self.config.seed,
            "disc_labels": [list(p) for p in self.settings.classes["disc"]],
            "weights": file_digest(model / "model.safetensors"),
        }

    def __call__(self, scan: Scan) -> Status:
        from neuromm.models import disc_regions
        from neuromm.models.ivdnet import CARD
        from neuromm.report import write_segmentation

        inputs = _digests(scan, self.config.data)
        told = self.told(scan)
        if not self.config.overwrite and self._is_done(scan, told, inputs):
            return "skipped"
        self._check_modalities(scan)
        sample = scan.load()
        volume, order = turned(sample, self.settings.modalities)
        available = [name in sample.data for name in self.settings.modalities]
        try:
            found = self._found(np.ascontiguousarray(volume), available)
        except DataError as error:
            raise DataError(str(error), self._file_of(error, scan)) from error
        classes = order.back(found.labels)
        disc = self.settings.disc
        probabilities = order.back(found.probabilities)
        uncertainty = order.back(found.uncertainty)
        first = next(iter(sample.data.values()))
        regions = disc_regions(
            classes,
            first.affine,
            class_index=disc,
            probabilities=probabilities[disc],
            uncertainty=uncertainty,
            smallest_mm3=self.config.smallest_mm3,
        )
        names = ["background", *self.settings.classes]
        several = len(names) > 2
        write_segmentation(
            self.config.output_dir,
            scan.entities,
            regions,
            image=first,
            probabilities=probabilities[disc],
            uncertainty=uncertainty,
            classes=classes if several else None,
            class_names=names if several else (),
            card=CARD,
            settings={**told, "n_passes": found.n_passes},
            notice=self.settings.notice,
            warnings=self._warnings(scan, order.spacing_mm, len(regions.table)),
            provenance=Provenance(
                versions=package_versions(),
                config={**told, "smallest_mm3": self.config.smallest_mm3},
                seed=self.config.seed,
                inputs=inputs,
                device=self.device,
            ),
            sources=scan.files,
        )
        return "done"

    def _file_of(self, error: DataError, scan: Scan) -> Path:
        """The image that an error is about: modalities are numbered in it."""
        told = re.search(r"modality (\d+) \(from 0\)", str(error))
        if told is None or len(scan.files) < len(self.settings.modalities):
            return scan.files[0]
        return scan.file_of(self.settings.modalities[int(told[1])])

    def _found(self, volume: Any, available: Sequence[bool]) -> Any:
        from neuromm.models import predict_with_uncertainty

        looks = self.config.uncertainty
        # Slices were turned round within their plane.
        flips = (1, 2) if looks == "flips" else ()
        return predict_with_uncertainty(
            self.model,
            volume,
            available,
            flips=flips,
            n_dropout=8 if looks == "dropout" else 0,
            rng=self.config.seed,
        )

    def _is_done(
        self, scan: Scan, told: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> bool:
        path = regions_path(self.config.output_dir, scan)
        if not path.is_file():
            return False
        try:
            provenance = read_json(path).get("Provenance") or {}
        except DataError:
            return False
        wanted = {**told, "smallest_mm3": self.config.smallest_mm3}
        return bool(
            provenance.get("config") == wanted
            and provenance.get("inputs") == dict(inputs)
        )

    def _check_modalities(self, scan: Scan) -> None:
        lacking = [m for m in self.settings.modalities if m not in scan.modalities]
        if lacking and not self.settings.may_lack:
            raise InputMissingError(
                f"has no {', '.join(lacking)} (it has {', '.join(scan.modalities)}, in "
                f"{scan.files[0].parent}), and the network was trained with all of "
                f"{', '.join(self.settings.modalities)}. Train with --modality-dropout "
                "to do without"
            )

    def _warnings(
        self, scan: Scan, spacing_mm: tuple[float, ...], n_discs: int
    ) -> list[str]:
        found = []
        lacking = [m for m in self.settings.modalities if m not in scan.modalities]
        if lacking:
            found.append(f"{', '.join(lacking)} not acquired: discs found without.")
        for own, trained in zip(spacing_mm[1:], self.settings.spacing_mm, strict=True):
            if not 1 / _OTHER_SPACING < own / trained < _OTHER_SPACING:
                found.append(
                    f"Voxels of {own:.3g} mm, the network was trained on "
                    f"{trained:.3g} mm: sizes look other than in training."
                )
                break
        if scan.subject in self.settings.patients and (
            self.settings.patients[scan.subject] != "test"
        ):
            found.append(
                "The network was trained on a patient of this name: if it is the same, "
                "this says nothing about new patients."
            )
        if not n_discs:
            found.append("No disc was found.")
        return found


def _check_looks(config: Config, settings: SegmentSettings, model: Any) -> None:
    if config.uncertainty == "flips" and not settings.flips:
        raise UsageError(
            "--uncertainty flips: the network was not trained on slices turned round. "
            "Train it with --flips"
        )
    if config.uncertainty == "dropout" and not model.config.dropout:
        raise UsageError(
            "--uncertainty dropout: the network drops no maps. Train it with --dropout "
            "0.1"
        )


def _each(scans: Sequence[Scan], worker: _Worker, config: Config) -> list[Outcome]:
    from tqdm import tqdm

    ended = []
    for scan in tqdm(scans, unit="scan", disable=None):
        outcome = outcome_of(
            scan.name,
            lambda scan=scan: worker(scan),  # type: ignore[misc]
            output_dir=config.output_dir,
            omp_nthreads=None,
            debug=config.debug,
        )
        logger.info("%s: %s", scan.name, outcome.status)
        ended.append(outcome)
    return ended


def _digests(scan: Scan, data: Path) -> dict[str, str]:
    """SHA-256 of what is read; of a DICOM folder, of each of its files."""
    found = {}
    for path in scan.files:
        parts = sorted(p for p in path.rglob("*") if p.is_file()) or [path]
        for part in parts:
            name = part.relative_to(data) if part.is_relative_to(data) else part
            found[str(name)] = file_digest(part)
    return found
