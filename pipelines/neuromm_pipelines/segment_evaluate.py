"""``neuromm segment evaluate``: discs that were found against a reference."""

import logging
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core.errors import DataError, InputMissingError
from neuromm.core.files import read_json, write_json
from neuromm_pipelines.outcomes import Outcome, Status, exit_code, outcome_of, summary
from neuromm_pipelines.segment_predict import regions_path, written_reports
from neuromm_pipelines.segment_scans import Scan, classes_of, open_scans
from neuromm_pipelines.segment_settings import read_settings

__all__ = ["Config", "run"]

logger = logging.getLogger(__name__)

_SHOWN = (
    "dice",
    "average_surface_distance_mm",
    "hausdorff95_mm",
    "mean_localisation_distance_mm",
    "detection_rate",
    "identification_rate",
    "expected_calibration_error",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``neuromm segment evaluate`` was asked to do."""

    data: Path
    output_dir: Path
    layout: str = "auto"
    participant_label: tuple[str, ...] | None = None
    labels: Path | None = None
    resample_to: str | None = None
    persons: Path | None = None
    split: Path | None = None
    debug: bool = False
    command_line: str = field(default="", compare=False)


def run(config: Config) -> int:
    """Score every scan that has a prediction and a reference.

    Returns
    -------
    exit_code : int
        0 if all were scored; 1 if some failed; 66 if none has both.

    Raises
    ------
    neuromm.core.NeurommError
        If folders or settings are wrong.
    """
    from neuromm.report import write_segment_summary

    started = time.monotonic()
    # MONAI uses an argument that it has deprecated itself.
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    scans = _scans(config)
    ended: list[Outcome] = [
        outcome_of(
            scan.name,
            lambda scan=scan: _scored(scan, config),  # type: ignore[misc]
            output_dir=config.output_dir,
            omp_nthreads=None,
            debug=config.debug,
        )
        for scan in scans
    ]
    ended += written_reports(config.output_dir, ended)
    for outcome in ended:
        if outcome.status == "failed":
            print(f"neuromm segment: error: {outcome.message}", file=sys.stderr)
    done = [
        scan for scan, one in zip(scans, ended, strict=False) if one.status == "done"
    ]
    if done:
        write_segment_summary(config.output_dir, only={scan.name for scan in done})
        _write_means(config, done)
    logger.info("took %.0f s", time.monotonic() - started)
    of_scans = [outcome for outcome in ended if not outcome.name.endswith(" report")]
    print(f"neuromm segment: {summary(of_scans)}")
    return exit_code(ended)


def _scans(config: Config) -> list[Scan]:
    """Scans with a prediction and labels, of patients that count."""
    predicted = sorted(config.output_dir.rglob("*_desc-disc_regions.json"))
    if not predicted:
        raise InputMissingError(
            f"{config.output_dir}: holds no discs. Run neuromm segment predict first"
        )
    told = read_json(predicted[0]).get("Segmentation") or {}
    scans, _, _ = open_scans(
        config.data,
        layout=config.layout,
        modalities=told.get("modalities"),
        participant_label=config.participant_label,
        labels=config.labels,
        resample_to=config.resample_to,
        persons=config.persons,
    )
    if config.split is not None:
        parts = read_settings(config.split).patients
        scans = [s for s in scans if parts.get(s.subject, "test") == "test"]
    kept = [
        scan
        for scan in scans
        if scan.has_labels and regions_path(config.output_dir, scan).is_file()
    ]
    left = [scan.name for scan in scans if scan not in kept]
    if kept and left:
        print(
            f"neuromm segment: {len(left)} scans have no labels or no prediction, and "
            f"do not count: {', '.join(left[:10])}{' …' if len(left) > 10 else ''}",
            file=sys.stderr,
        )
    if not kept:
        n_labelled = sum(scan.has_labels for scan in scans)
        raise InputMissingError(
            f"none of {len(scans)} scans has both labels ({n_labelled} have) and discs "
            f"in {config.output_dir}. Is this the data set that was predicted"
            f"{', and the fold left out' if config.split else ''}?"
        )
    return kept


def _scored(scan: Scan, config: Config) -> Status:
    """Write the scan again, with its reference beside it."""
    from neuromm.io import mri
    from neuromm.models import disc_regions
    from neuromm.models.ivdnet import CARD
    from neuromm.report import write_segmentation

    sidecar = read_json(regions_path(config.output_dir, scan))
    told = dict(sidecar.get("Segmentation") or {})
    sample = scan.load()
    first = next(iter(sample.data.values()))
    stem = str(regions_path(config.output_dir, scan)).replace("_regions.json", "")
    regions = _stored_regions(stem, told)
    labels = np.asarray(mri.load_labels(sample).dataobj)
    reference = disc_regions(
        classes_of(labels, _disc_values(sidecar)) > 0, first.affine, smallest_mm3=0
    )
    names, classes = _stored_classes(stem.replace("desc-disc", "desc-classes"))
    for name in ("n_discs", "smallest_mm3", "n_dropped", "connectivity", "gap_slices"):
        told.pop(name, None)
    write_segmentation(
        config.output_dir,
        scan.entities,
        regions,
        image=first,
        probabilities=_volume(f"{stem}_probseg.nii.gz"),
        uncertainty=_volume(
            f"{stem}_statmap.nii.gz".replace("_desc-disc", "_stat-entropy_desc-disc")
        ),
        reference=reference,
        classes=classes,
        class_names=names,
        card=CARD,
        settings=told,
        notice=str(sidecar.get("Notice") or ""),
        warnings=list(sidecar.get("Warnings") or []),
        provenance=sidecar.get("Provenance"),
        sources=scan.files,
    )
    return "done"


def _disc_values(sidecar: Any) -> dict[str, Any]:
    """Labels of discs in the masks, as the network was trained on them."""
    pairs = (sidecar.get("Segmentation") or {}).get("disc_labels") or [[1, 2**31 - 1]]
    return {"disc": tuple((int(low), int(high)) for low, high in pairs)}


def _stored_regions(stem: str, told: Any) -> Any:
    """The discs as they were written."""
    from neuromm.models import DiscRegions

    image = _image(f"{stem}_dseg.nii.gz")
    try:
        table = pd.read_csv(f"{stem}_regions.tsv", sep="\t", na_values="n/a")
        return DiscRegions(
            labels=np.asarray(image.dataobj).astype(np.int32),
            table=table,
            affine=np.asarray(image.affine, dtype=np.float64),
            smallest_mm3=float(told["smallest_mm3"]),
            n_dropped=int(told["n_dropped"]),
            gap_slices=int(told["gap_slices"]),
        )
    except (KeyError, ValueError, OSError) as error:
        raise DataError(
            f"is damaged ({error}): predict the scan again with --overwrite",
            f"{stem}_regions.tsv",
        ) from error


def _stored_classes(stem: str) -> tuple[list[str], Any]:
    if not Path(f"{stem}_dseg.nii.gz").is_file():
        return [], None
    table = pd.read_csv(f"{stem}_dseg.tsv", sep="\t")
    return list(table["name"]), np.asarray(_image(f"{stem}_dseg.nii.gz").dataobj)


def _volume(path: str) -> Any:
    if not Path(path).is_file():
        return None
    return np.asarray(_image(path).dataobj, dtype=np.float32)


def _image(path: str) -> Any:
    from neuromm.io import mri

    return mri.load(path).data


def _write_means(config: Config, scans: list[Scan]) -> None:
    """Mean of each measure over patients with its interval: printed, and as JSON."""
    from neuromm.metrics import bootstrap_interval

    rows = [
        (read_json(regions_path(config.output_dir, s)).get("Scores") or {})
        for s in scans
    ]
    table = pd.DataFrame(rows).reindex(columns=list(_SHOWN)).astype(float)
    patients = [scan.subject for scan in scans]
    by_patient = table.groupby(patients).mean()
    means, counts = by_patient.mean(), by_patient.notna().sum()
    told = {}
    n_patients = len(set(patients))
    print(f"neuromm segment: {len(scans)} scans of {n_patients} patients, mean [95 %]")
    for name in _SHOWN:
        low, high = bootstrap_interval(table[name], groups=patients)
        told[name] = {
            key: None if np.isnan(value) else round(float(value), 6)
            for key, value in (("mean", means[name]), ("low", low), ("high", high))
        }
        told[name]["n_patients"] = int(counts[name])
        # A scan without any disc has no distances: the worst ones must not vanish.
        few = "" if counts[name] == n_patients else f"  of {counts[name]} patients"
        words = name.replace("_mm", " (mm)").replace("_", " ")
        print(f"  {words:<36} {means[name]:7.3f}  [{low:.3f}, {high:.3f}]{few}")
    write_json(
        config.output_dir / "evaluation.json",
        {
            "Description": "Means over patients, with 95 % intervals by resampling "
            "patients (percentiles; too narrow for few patients)",
            "n_scans": len(scans),
            "n_patients": n_patients,
            "measures": told,
        },
    )
