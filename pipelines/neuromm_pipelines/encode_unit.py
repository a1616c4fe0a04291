"""One unit of ``neuromm encode``: found, prepared, fitted, written."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from neuromm.core import (
    EncodingResult,
    InputMissingError,
    Provenance,
    SiteMap,
    Study,
    TargetSpace,
    UsageError,
)
from neuromm.core.files import file_digest
from neuromm.core.provenance import package_versions
from neuromm_pipelines.encode_settings import as_json
from neuromm_pipelines.encode_sites import bins_a_site, fit_sites
from neuromm_pipelines.inputs import input_files, input_stamps
from neuromm_pipelines.outcomes import Outcome, Status, outcome_of
from neuromm_pipelines.units import UnitState, locked

if TYPE_CHECKING:
    from neuromm.features.exchange import FeatureTable
    from neuromm_pipelines.encode import EncodeConfig

__all__ = [
    "EncodingUnit",
    "Prepared",
    "encode_unit_by_name",
    "find_units",
    "fit_unit",
    "memory_limit",
    "prepare_unit",
    "read_tables",
    "unit_folder",
    "unit_of",
    "unit_settings",
    "unit_state",
    "write_results",
]

logger = logging.getLogger(__name__)

# What makes two recordings parts of one unit; runs are its parts.
_PREFIX = {
    "subject": "sub",
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "echo": "echo",
    "space": "space",
    "resolution": "res",
    "density": "den",
}
_UNIT_ENTITIES = tuple(_PREFIX)


@dataclass(frozen=True)
class EncodingUnit:
    """Recordings that are encoded together: the runs of one subject and task."""

    entities: Mapping[str, str]
    datatype: str
    study: Study

    @property
    def name(self) -> str:
        """Such as ``sub-01_task-film_space-MNI152NLin2009cAsym_func``."""
        parts = [f"{_PREFIX[key]}-{value}" for key, value in self.entities.items()]
        return "_".join([*parts, self.datatype])


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Samples of a unit, ready for regression.

    Attributes
    ----------
    features : dict of str to DataArray, dims (sample, feature)
        Several layers of a space lie side by side.
    responses : DataArray, dims (sample, target)
    targets : TargetSpace
    embargo : float
        Seconds between training and test samples when one run is cut into blocks: the
        time over which samples share data.
    block : int
        Samples a block of the permutation test.
    design : dict
        How samples were made, for the sidecar and the methods paragraph.
    warnings : list of str
    """

    features: dict[str, xr.DataArray]
    responses: xr.DataArray
    targets: TargetSpace
    embargo: float
    block: int
    design: dict[str, Any]
    warnings: list[str]

    @property
    def spaces(self) -> dict[str, xr.DataArray | dict[str, xr.DataArray]]:
        """Features as models take them: layers of which one is chosen, apart."""
        from neuromm.features import split_candidates

        return {name: split_candidates(one) for name, one in self.features.items()}


def encode_unit_by_name(config: "EncodeConfig", name: str) -> Outcome:
    """Encode one unit; whatever goes wrong becomes an outcome, not an exception.

    Runs in this process or in a worker, which finds the unit again by its name.
    """
    return outcome_of(
        name,
        lambda: _encode(config, unit_of(config, name)),
        output_dir=config.output_dir,
        omp_nthreads=config.omp_nthreads,
        debug=config.debug,
    )


def unit_of(config: "EncodeConfig", name: str) -> EncodingUnit:
    """Find a unit again by its name.

    Raises
    ------
    InputMissingError
        If the data set no longer holds it.
    """
    for unit in find_units(config):
        if unit.name == name:
            return unit
    raise InputMissingError(
        f"{config.bids_dir} no longer holds the recordings of {name}"
    )


def find_units(config: "EncodeConfig") -> list[EncodingUnit]:
    """Units that the command line selects, in a fixed order.

    Raises
    ------
    neuromm.core.NeurommError
        If nothing matches; the message lists what there is.
    """
    from neuromm.io.bids import open_dataset

    study = open_dataset(
        config.bids_dir,
        derivatives=config.derivatives,
        participant_label=config.participant_label or None,
        session_label=config.session_label or None,
        task=config.task or None,
        run=config.run_label or None,
        space=config.space or None,
        datatype=config.datatype or None,
        filters=config.bids_filter_file,
    )
    keys = [*_UNIT_ENTITIES, "datatype"]
    units = []
    for values, rows in study.table.groupby(keys, dropna=False, sort=True):
        labels = dict(zip(keys, values, strict=True))
        entities = {
            key: str(labels[key])
            for key in _UNIT_ENTITIES
            if labels[key] is not None and labels[key] == labels[key]
        }
        runs = Study(rows.reset_index(drop=True), study.loader)
        unit = EncodingUnit(entities, str(labels["datatype"]), runs)
        _check_runs(unit)
        units.append(unit)
    return units


def _check_runs(unit: EncodingUnit) -> None:
    """Refuse a run that occurs twice: it would be trained and tested on itself."""
    table = unit.study.table
    twice = table[table["run"].duplicated(keep=False)]
    if len(twice):
        paths = ", ".join(str(path) for path in twice["path"][:2])
        raise UsageError(
            f"{unit.name}: two recordings of one run would be encoded together "
            f"({paths}). Choose one with --derivatives or --bids-filter-file."
        )


def _encode(config: "EncodeConfig", unit: EncodingUnit) -> Status:
    from neuromm_pipelines.encode_plan import check_memory

    with locked(config.output_dir, unit.name):
        tables = read_tables(config)
        state = unit_state(config, unit)
        if config.overwrite or not config.resume:
            state.forget()
        elif state.is_done():
            logger.info("%s: finished before, skipped", unit.name)
            return "skipped"
        check_memory(config, unit, tables)
        prepared = prepare_unit(config, unit, tables)
        results = fit_unit(config, prepared)
        sites = fit_sites(config, prepared)
        state.finish(write_results(config, unit, tables, prepared, results, sites))
    return "done"


def unit_state(config: "EncodeConfig", unit: EncodingUnit) -> UnitState:
    """What is known of a unit in the output folder, with these settings and inputs."""
    return UnitState(
        config.output_dir,
        unit.name,
        unit_settings(config, unit),
        input_stamps(config, list(unit.study)),
    )


def prepare_unit(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> Prepared:
    """Read the runs of a unit and bring them to samples.

    Raises
    ------
    neuromm.core.NeurommError
        If a file is missing, damaged, or contradicts another.
    """
    if unit.datatype == "func":
        from neuromm_pipelines.encode_bold import prepare_bold

        return prepare_bold(unit.study, tables, config.bold, config.trial_type)
    from neuromm_pipelines.encode_epochs import prepare_epochs

    return prepare_epochs(unit.study, tables, config.epochs, config.trial_type)


def fit_unit(
    config: "EncodeConfig", prepared: Prepared, part: slice | None = None
) -> dict[str, EncodingResult]:
    """Fit every feature space.

    Parameters
    ----------
    config : EncodeConfig
    prepared : Prepared
    part : slice, optional
        Fit these targets alone. Batches then follow from their number only, so that a
        memory limit changes no bit of a chunk.
    """
    from neuromm.encoding import encode
    from neuromm_pipelines.outer_cv import outer_cv

    model = config.model
    responses = prepared.responses
    if part is not None:
        responses = responses.isel(target=part)
    responses = responses.astype(np.float32 if config.low_mem else np.float64)
    return encode(
        prepared.spaces,
        responses,
        targets=prepared.targets if part is None else None,
        cv=outer_cv(model, prepared),
        alphas=np.asarray(model.alphas),
        scoring=model.scoring,
        backend=config.backend,
        device=config.device,
        n_permutations=model.n_permutations,
        block=model.block or prepared.block,
        joint=model.joint,
        memory_limit=memory_limit(config) if part is None else None,
        keep_predictions="predictions" in model.save,
        rng=model.seed,
    )


def write_results(
    config: "EncodeConfig",
    unit: EncodingUnit,
    tables: "Sequence[FeatureTable]",
    prepared: Prepared,
    results: Mapping[str, EncodingResult],
    sites: SiteMap | None = None,
) -> list[Path]:
    """Write the tables, maps and sidecars of a unit; give their paths."""
    from neuromm.report import write_predictions, write_sites, write_unit
    from neuromm_pipelines.regions import target_regions

    regions, notes = target_regions(
        prepared.targets, config.model.atlas, config.model.atlas_distance_mm
    )
    samples = list(unit.study)
    inputs = input_files(config, samples)
    provenance = Provenance(
        versions=package_versions(),
        config=unit_settings(config, unit),
        seed=config.model.seed,
        inputs={name: file_digest(path) for name, path in inputs.items()},
    )
    sources = [path for path in (sample.source for sample in samples) if path]
    spaces = {table.name: _described(table) for table in tables}
    written = write_unit(
        config.output_dir,
        unit.entities,
        unit.datatype,
        results,
        regions=regions,
        design=prepared.design
        | {
            "feature_spaces": spaces,
            "atlas": config.model.atlas,
            "n_permutations": config.model.n_permutations,
            "scoring": config.model.scoring,
        },
        warnings=[*prepared.warnings, *notes, *_stand_ins(tables)],
        provenance=provenance,
        sources=sources,
    )
    if sites is not None:
        n_bins = bins_a_site(prepared.responses)
        written += write_sites(
            config.output_dir,
            unit.entities,
            unit.datatype,
            sites,
            space=prepared.targets,
            regions=None if regions is None else regions[::n_bins],
            feature_spaces=spaces,
            provenance=provenance,
            sources=sources,
        )
    if "predictions" in config.model.save:
        written += [
            write_predictions(
                config.output_dir,
                unit.entities,
                unit.datatype,
                result,
                prepared.responses,
            )
            for result in results.values()
        ]
    return written


def _described(table: "FeatureTable") -> dict[str, Any]:
    return {
        "file": table.source.name,
        "key": table.key,
        "n_features": int(table.values.shape[1]),
        **{str(name): str(value) for name, value in table.attrs.items()},
    }


def _stand_ins(tables: "Sequence[FeatureTable]") -> list[str]:
    """Warn of features that no network has made."""
    named = [
        f"{table.name} ({table.attrs.get('model')})"
        for table in tables
        if str(table.attrs.get("kind", "")).lower() == "stand-in"
    ]
    if not named:
        return []
    return [
        f"features of a stand-in backbone, not of a network: {', '.join(named)}. The "
        "scores show that the analysis works, and are no result about the brain"
    ]


def read_tables(config: "EncodeConfig") -> "list[FeatureTable]":
    """Read every feature space."""
    from neuromm.features.exchange import read_features

    return [read_features(path, name) for name, path in config.features.items()]


def unit_settings(config: "EncodeConfig", unit: EncodingUnit) -> dict[str, Any]:
    """Everything but the data that can change a number of this unit."""
    data = config.bold if unit.datatype == "func" else config.epochs
    settings = {
        "neuromm": package_versions().get("neuromm"),
        "datatype": unit.datatype,
        "features": list(config.features),
        "trial_type": list(config.trial_type),
        "low_mem": config.low_mem,
        "chunks": config.chunks,
        "backend": config.backend,
        "device": config.device,
        "data": as_json(data),
        "model": as_json(config.model),
    }
    if config.sites is not None:
        settings["sites"] = as_json(config.sites)
    return settings


def memory_limit(config: "EncodeConfig") -> int | None:
    """Bytes that one process may take; None without ``--mem``."""
    if config.mem_mb is None:
        return None
    return int(config.mem_mb * 2**20 / max(config.nprocs, 1))


def unit_folder(config: "EncodeConfig", unit: EncodingUnit) -> Path:
    """Folder of a unit's results."""
    folder = config.output_dir / f"sub-{unit.entities['subject']}"
    if "session" in unit.entities:
        folder /= f"ses-{unit.entities['session']}"
    return folder / unit.datatype
