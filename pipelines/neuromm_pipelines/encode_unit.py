"""One unit of ``neuromm encode``: found, planned, encoded, written."""

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from neuromm.core import (
    EncodingResult,
    NeurommError,
    OutputError,
    Provenance,
    ResourceLimitError,
    Sample,
    Study,
    TargetSpace,
    UsageError,
)
from neuromm.core.files import file_digest, write_text
from neuromm.core.provenance import package_versions, peak_memory
from neuromm_pipelines.encode_settings import as_json
from neuromm_pipelines.inputs import input_files, input_stamps
from neuromm_pipelines.units import UnitState, locked

if TYPE_CHECKING:
    from neuromm.encoding import Plan
    from neuromm.features.exchange import FeatureTable
    from neuromm_pipelines.encode import EncodeConfig

__all__ = [
    "EncodingUnit",
    "Outcome",
    "Prepared",
    "encode_unit_by_name",
    "find_units",
    "print_plan",
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


@dataclass(frozen=True)
class Outcome:
    """How one unit, or one report, ended."""

    name: str
    status: Literal["done", "skipped", "failed"]
    subject: str
    code: int = 0
    message: str = ""
    wall_time: float = 0.0
    peak_memory: int = 0


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


def encode_unit_by_name(config: "EncodeConfig", name: str) -> Outcome:
    """Encode one unit; whatever goes wrong becomes an outcome, not an exception.

    Runs in this process or in a worker, which finds the unit again by its name.
    """
    from threadpoolctl import threadpool_limits

    started = time.monotonic()
    subject = name.split("_")[0].removeprefix("sub-")
    limits = (
        nullcontext()
        if config.omp_nthreads is None
        else threadpool_limits(config.omp_nthreads)
    )
    try:
        with limits:
            (unit,) = [unit for unit in find_units(config) if unit.name == name]
            status = _encode(config, unit)
        code, message = 0, ""
    except NeurommError as error:
        if config.debug:
            logger.exception("%s", name)
        status, code, message = "failed", error.exit_code, f"{name}: {error}"
    except MemoryError:
        status, code = "failed", ResourceLimitError.exit_code
        message = f"{name}: memory ran out; set --mem, or free memory and run again"
    except Exception as error:
        status, code = "failed", 70
        where = _write_crash(config.output_dir, name)
        message = (
            f"{name}: internal error, {type(error).__name__}: {error}. The details are "
            f"in {where}; please report them."
        )
    return Outcome(
        name, status, subject, code, message, time.monotonic() - started, peak_memory()
    )


def print_plan(config: "EncodeConfig", units: Sequence[EncodingUnit]) -> None:
    """Print inputs, outputs, memory and time of each unit; compute nothing.

    Raises
    ------
    NeurommError
        What would stop the first unit that cannot be planned.
    """
    tables = _read_tables(config)
    for unit in units:
        n_samples, n_targets = _size(config, unit, tables)
        n_features = sum(table.values.shape[1] for table in tables)
        estimate = _planned(config, n_samples, n_features, n_targets)
        inputs = 8 * n_samples * (n_features + n_targets)
        print(f"{unit.name}")
        for sample in unit.study:
            print(f"  input   {sample.source}")
            for role, path in sorted(sample.companions.items()):
                print(f"          {path} ({role})")
        for table in tables:
            print(f"  space   {table.name}: {table.source} ({len(table.values)} rows)")
        print(f"  output  {_folder(config, unit)}/{_stem(unit)}_…")
        print(
            f"  size    {n_samples} samples x {n_features} features -> "
            f"{n_targets} targets ({estimate.solver_form})"
        )
        print(
            f"  needs   {(inputs + estimate.peak_memory) / 2**20:.1f} MB and about "
            f"{_total_seconds(estimate.seconds, tables, config):.1f} s"
        )
    print(f"neuromm encode: {len(units)} units planned, nothing written")


def _encode(
    config: "EncodeConfig", unit: EncodingUnit
) -> Literal["done", "skipped", "failed"]:
    with locked(config.output_dir, unit.name):
        tables = _read_tables(config)
        samples = list(unit.study)
        state = UnitState(
            config.output_dir,
            unit.name,
            _settings(config, unit, tables),
            input_stamps(config, samples, tables),
        )
        if config.overwrite or not config.resume:
            state.forget()
        elif state.is_done():
            logger.info("%s: finished before, skipped", unit.name)
            return "skipped"
        _check_memory(config, unit, tables)
        prepared = _prepare(config, unit, tables)
        results = _fit(config, prepared)
        state.finish(_write(config, unit, samples, tables, prepared, results))
    return "done"


def _prepare(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> Prepared:
    if unit.datatype == "func":
        from neuromm_pipelines.encode_bold import prepare_bold

        return prepare_bold(unit.study, tables, config.bold, config.trial_type)
    from neuromm_pipelines.encode_epochs import prepare_epochs

    return prepare_epochs(unit.study, tables, config.epochs, config.trial_type)


def _fit(config: "EncodeConfig", prepared: Prepared) -> dict[str, EncodingResult]:
    from neuromm.encoding import BlockedKFold, RunKFold, encode

    model = config.model
    responses = prepared.responses
    n_runs = len(np.unique(responses["run"].to_numpy()))
    cv: Any
    if n_runs > 1:
        cv = RunKFold(model.folds)
    else:
        cv = BlockedKFold(
            model.folds or 5,
            purge=prepared.embargo,
            onset=responses["onset"].to_numpy(),
        )
    responses = responses.astype(np.float32 if config.low_mem else np.float64)
    return encode(
        prepared.features,
        responses,
        targets=prepared.targets,
        cv=cv,
        alphas=np.asarray(model.alphas),
        scoring=model.scoring,
        n_permutations=model.n_permutations,
        block=model.block or prepared.block,
        joint=model.joint,
        memory_limit=_memory_limit(config),
        keep_predictions="predictions" in model.save,
        rng=model.seed,
    )


def _write(
    config: "EncodeConfig",
    unit: EncodingUnit,
    samples: Sequence[Sample],
    tables: "Sequence[FeatureTable]",
    prepared: Prepared,
    results: Mapping[str, EncodingResult],
) -> list[Path]:
    from neuromm.report import write_predictions, write_unit
    from neuromm_pipelines.regions import target_regions

    regions, notes = target_regions(
        prepared.targets, config.model.atlas, config.model.atlas_distance_mm
    )
    inputs = input_files(config, samples, tables)
    provenance = Provenance(
        versions=package_versions(),
        config=_settings(config, unit, tables),
        seed=config.model.seed,
        inputs={name: file_digest(path) for name, path in inputs.items()},
    )
    written = write_unit(
        config.output_dir,
        unit.entities,
        unit.datatype,
        results,
        regions=regions,
        design=prepared.design
        | {
            "feature_spaces": {table.name: _described(table) for table in tables},
            "atlas": config.model.atlas,
            "n_permutations": config.model.n_permutations,
            "scoring": config.model.scoring,
        },
        warnings=[*prepared.warnings, *notes],
        provenance=provenance,
        sources=[path for path in (sample.source for sample in samples) if path],
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


def _read_tables(config: "EncodeConfig") -> "list[FeatureTable]":
    from neuromm.features.exchange import read_features

    if "joint" in config.features and config.model.joint and len(config.features) > 1:
        raise UsageError(
            "'joint' is the name of all feature spaces together: give the space "
            "another name, or leave the joint model out with --no-joint"
        )
    return [read_features(path, name) for name, path in config.features.items()]


def _settings(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> dict[str, Any]:
    """Everything but the data that can change a number of this unit."""
    data = config.bold if unit.datatype == "func" else config.epochs
    return {
        "neuromm": package_versions().get("neuromm"),
        "datatype": unit.datatype,
        "features": [table.name for table in tables],
        "trial_type": list(config.trial_type),
        "low_mem": config.low_mem,
        "data": as_json(data),
        "model": as_json(config.model),
    }


def _size(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> tuple[int, int]:
    """Number of samples and of targets, read from headers."""
    if unit.datatype == "func":
        from neuromm_pipelines.encode_bold import bold_size

        return bold_size(unit.study, config.bold)
    from neuromm_pipelines.encode_epochs import epochs_size

    return epochs_size(unit.study, tables, config.epochs, config.trial_type)


def _check_memory(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> None:
    import psutil

    n_samples, n_targets = _size(config, unit, tables)
    n_features = sum(table.values.shape[1] for table in tables)
    estimate = _planned(config, n_samples, n_features, n_targets)
    inputs = 8 * n_samples * (n_features + n_targets)
    available = psutil.virtual_memory().available
    allowed = min(_memory_limit(config) or available, available)
    needed = inputs + estimate.peak_memory
    if needed > allowed:
        raise ResourceLimitError(
            f"needs about {needed / 2**20:.0f} MB for {n_samples} samples, "
            f"{n_features} features and {n_targets} targets, and may take "
            f"{allowed / 2**20:.3g} MB. Raise --mem, use fewer --nprocs, --low-mem, or "
            "a smaller --mask."
        )


def _planned(
    config: "EncodeConfig", n_samples: int, n_features: int, n_targets: int
) -> "Plan":
    """Plan of the fits, in batches that keep the memory limit where that can be."""
    from neuromm.encoding import plan

    sizes = (n_samples, n_features, n_targets)
    dtype = np.float32 if config.low_mem else np.float64
    n_alphas = len(config.model.alphas)
    try:
        return plan(
            *sizes, n_alphas=n_alphas, dtype=dtype, memory_limit=_memory_limit(config)
        )
    except ResourceLimitError:
        return plan(*sizes, n_alphas=n_alphas, dtype=dtype, memory_limit=None)


def _memory_limit(config: "EncodeConfig") -> int | None:
    if config.mem_mb is None:
        return None
    return int(config.mem_mb * 2**20 / max(config.nprocs, 1))


def _total_seconds(
    seconds: float, tables: "Sequence[FeatureTable]", config: "EncodeConfig"
) -> float:
    n_models = len(tables) + (config.model.joint and len(tables) > 1)
    return seconds * n_models


def _folder(config: "EncodeConfig", unit: EncodingUnit) -> Path:
    folder = config.output_dir / f"sub-{unit.entities['subject']}"
    if "session" in unit.entities:
        folder /= f"ses-{unit.entities['session']}"
    return folder / unit.datatype


def _stem(unit: EncodingUnit) -> str:
    return unit.name.removesuffix(f"_{unit.datatype}")


def _write_crash(output_dir: Path, name: str) -> str:
    """Keep a traceback for a report; a full disk must not hide the first error."""
    text = traceback.format_exc()
    try:
        return str(write_text(output_dir / "logs" / f"crash-{name}.txt", text))
    except OutputError:
        logger.error("%s", text)
        return "the lines above"
