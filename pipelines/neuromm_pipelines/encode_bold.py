"""Runs of BOLD and feature tables become samples: one a volume."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from neuromm.core import DataError, InputMissingError, Sample, Study
from neuromm_pipelines.encode_settings import BoldSettings
from neuromm_pipelines.encode_unit import Prepared
from neuromm_pipelines.events import selected_events

if TYPE_CHECKING:
    from neuromm.features.exchange import FeatureTable
    from neuromm.prepare import SurfaceSpace, VoxelSpace

__all__ = ["bold_size", "prepare_bold", "scan_size"]

# The haemodynamic response to a short event is over after about 20 s.
_RESPONSE_S = 20.0


def prepare_bold(
    study: Study,
    tables: "Sequence[FeatureTable]",
    settings: BoldSettings,
    trial_types: Sequence[str] = (),
) -> Prepared:
    """Bring the runs of one subject and task to samples.

    Parameters
    ----------
    study : Study
        One row a run, in one space.
    tables : sequence of FeatureTable
    settings : BoldSettings
    trial_types : sequence of str
        Keep these events alone; all if empty.

    Raises
    ------
    neuromm.core.NeurommError
        If events, features, mask or confounds are missing or do not fit the runs.
    """
    samples = list(study)
    space, notes = _target_space(samples, settings)
    responses = []
    features: dict[str, list[xr.DataArray]] = {table.name: [] for table in tables}
    t_rs = set()
    for sample in samples:
        t_r = _checked_repetition_time(sample)
        t_rs.add(round(t_r, 4))
        run_responses = _run_responses(sample, space, t_r, settings)
        responses.append(run_responses)
        for table, matrix in zip(
            tables,
            _run_features(sample, tables, t_r, settings, trial_types),
            strict=True,
        ):
            features[table.name].append(matrix)
    if len(t_rs) > 1:
        raise DataError(
            f"the runs have different repetition times ({sorted(t_rs)} s) and cannot "
            "be encoded together: choose runs with --run-label",
            samples[0].source,
        )
    t_r = t_rs.pop()
    return Prepared(
        features={name: xr.concat(parts, "sample") for name, parts in features.items()},
        responses=xr.concat(responses, "sample"),
        targets=space,
        embargo=_RESPONSE_S + t_r * max(settings.delays, default=0),
        block=max(round(_RESPONSE_S / t_r), 2),
        design={"pipeline": _pipeline(study), **_design(samples, settings, t_r)},
        warnings=notes,
    )


def bold_size(study: Study, settings: BoldSettings) -> tuple[int, int]:
    """Numbers of samples and targets, without reading the runs."""
    samples = list(study)
    space, _ = _target_space(samples, settings)
    n_volumes = sum(_n_volumes(sample) - sum(settings.trim) for sample in samples)
    return n_volumes, space.n_targets


def scan_size(sample: Sample) -> tuple[int, float]:
    """Number of volumes of a run and the time between them in s, from its header."""
    return _n_volumes(sample), _checked_repetition_time(sample)


def _target_space(
    samples: Sequence[Sample], settings: BoldSettings
) -> "tuple[VoxelSpace | SurfaceSpace, list[str]]":
    from neuromm.io.volumes import check_same_grid, load_mask
    from neuromm.prepare import SurfaceSpace, VoxelSpace
    from neuromm.prepare.brain_mask import common_mask, estimated_mask

    frame = samples[0].entities.get("space")
    if isinstance(samples[0].data, dict):
        return SurfaceSpace.from_gifti(samples[0].data, frame), []
    notes = []
    if settings.mask is not None:
        mask, source = load_mask(settings.mask), str(settings.mask)
    elif all("mask" in sample.companions for sample in samples):
        mask = common_mask([load_mask(sample.companions["mask"]) for sample in samples])
        source = str(samples[0].companions["mask"])
    else:
        mask, source = estimated_mask([sample.data for sample in samples]), "the mask"
        notes.append(
            "No brain mask came with the runs: voxels were chosen by their mean "
            "intensity. Give one with --mask."
        )
    for sample in samples:
        check_same_grid(sample.data, mask, str(sample.source), source)
    return VoxelSpace(mask, frame), notes


def _run_responses(
    sample: Sample,
    space: "VoxelSpace | SurfaceSpace",
    t_r: float,
    settings: BoldSettings,
) -> xr.DataArray:
    from neuromm.prepare import bold_responses

    return bold_responses(
        sample.data,
        space,
        t_r=t_r,
        run=_run_label(sample),
        subject=sample.entities.get("subject", ""),
        high_pass=settings.high_pass or None,
        confounds=_confounds(sample, settings),
        trim=settings.trim,
        slice_time_ref=settings.slice_time_ref,
        path=sample.source,
    )


def _run_features(
    sample: Sample,
    tables: "Sequence[FeatureTable]",
    t_r: float,
    settings: BoldSettings,
    trial_types: Sequence[str],
) -> list[xr.DataArray]:
    from neuromm.features.exchange import volume_features
    from neuromm.io.events import check_events_within
    from neuromm.prepare import frame_times

    n_volumes = _n_volumes(sample)
    times = frame_times(n_volumes, t_r, settings.slice_time_ref)
    events = selected_events(sample, tables, trial_types)
    if events is not None:
        check_events_within(
            events,
            n_volumes * t_r,
            sample.companions["events"],
            sample.source or "the scan",
        )
    return [
        volume_features(
            table,
            events,
            times,
            t_r=t_r,
            hrf=settings.hrf,
            delays=settings.delays,
            run=_run_label(sample),
            session=sample.entities.get("session"),
            subject=sample.entities.get("subject", ""),
            slice_time_ref=settings.slice_time_ref,
        )
        for table in tables
    ]


def _confounds(sample: Sample, settings: BoldSettings) -> pd.DataFrame | None:
    from neuromm.io.fmri import load_confounds

    if not settings.confounds:
        return None
    if "confounds" not in sample.companions:
        raise InputMissingError(
            f"{sample.source}: --confounds {' '.join(settings.confounds)} was asked "
            "for and no desc-confounds_timeseries.tsv lies beside the run. Give the "
            "preprocessed data set with --derivatives fmriprep=PATH, or leave "
            "--confounds out."
        )
    return load_confounds(sample.companions["confounds"], settings.confounds)


def _checked_repetition_time(sample: Sample) -> float:
    from neuromm.io.fmri import repetition_time

    return repetition_time(sample)


def _n_volumes(sample: Sample) -> int:
    if isinstance(sample.data, dict):
        from neuromm.io.surfaces import surface_shape

        return surface_shape(sample.data["left"])[0]
    return int(sample.data.shape[3])


def _run_label(sample: Sample) -> str:
    return sample.entities.get("run", "1")


def _pipeline(study: Study) -> str | None:
    """Name of the derivative data set that the runs come from; None for raw runs."""
    names = sorted({str(name) for name in study.table["dataset"]} - {"raw"})
    return ", ".join(names) or None


def _design(
    samples: Sequence[Sample], settings: BoldSettings, t_r: float
) -> dict[str, Any]:
    return {
        "runs": [_run_label(sample) for sample in samples],
        "n_volumes": [_n_volumes(sample) for sample in samples],
        "t_r_s": t_r,
        "hrf": settings.hrf,
        "delays_volumes": list(settings.delays),
        "high_pass_hz": settings.high_pass or None,
        "confounds": list(settings.confounds),
        "trim_volumes": list(settings.trim),
        "slice_time_ref": settings.slice_time_ref,
        "standardized": "z-score per run",
        "mask": None if settings.mask is None else settings.mask.name,
    }
