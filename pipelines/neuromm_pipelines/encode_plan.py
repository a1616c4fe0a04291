"""What the units of ``neuromm encode`` will take, before anything is read in full."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuromm.core import ResourceLimitError
from neuromm_pipelines.encode_sites import n_site_models, site_memory, sites_line
from neuromm_pipelines.encode_unit import (
    EncodingUnit,
    memory_limit,
    unit_folder,
)

if TYPE_CHECKING:
    from neuromm.encoding import Plan
    from neuromm.features.exchange import FeatureTable
    from neuromm_pipelines.encode import EncodeConfig

__all__ = ["check_memory", "print_plan"]


def print_plan(
    config: "EncodeConfig",
    units: Sequence[EncodingUnit],
    tables: "Sequence[FeatureTable]",
) -> None:
    """Print inputs, outputs, memory and time of each unit; compute nothing.

    Raises
    ------
    NeurommError
        What would stop the first unit that cannot be planned.
    """
    for unit in units:
        n_samples, n_targets = _size(config, unit, tables)
        n_features = sum(table.values.shape[1] for table in tables)
        n_fitted = _largest_chunk(config, unit, n_targets)
        estimate = _planned(config, n_samples, n_features, n_fitted)
        print(f"{unit.name}")
        for sample in unit.study:
            print(f"  input   {sample.source}")
            for role, path in sorted(sample.companions.items()):
                print(f"          {path} ({role})")
        for table in tables:
            print(f"  space   {table.name}: {table.source} ({len(table.values)} rows)")
        stem = unit.name.removesuffix(f"_{unit.datatype}")
        print(f"  output  {unit_folder(config, unit)}/{stem}_…")
        print(
            f"  size    {n_samples} samples x {n_features} features -> "
            f"{n_targets} targets ({estimate.solver_form})"
        )
        each = ""
        if config.chunked:
            each = " each"
            print(f"  cut     {config.chunks} chunks of at most {n_fitted} targets")
        if config.sites is not None:
            print(f"  sites   {sites_line(config, _layers(tables))}")
        needed = _inputs(config, n_samples, n_features, n_targets, n_fitted)
        needed += site_memory(
            config, n_samples, n_fitted, sum(_layers(tables).values())
        )
        print(
            f"  needs   {(needed + estimate.peak_memory) / 2**20:.1f} MB and about "
            f"{_total_seconds(estimate.seconds, tables, config):.1f} s{each}"
        )
    print(f"neuromm encode: {len(units)} units planned, nothing written")


def check_memory(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> None:
    """Refuse a unit, or a chunk of it, that needs more memory than there is.

    Raises
    ------
    ResourceLimitError
        With what is needed, what may be taken, and the flags that lessen the need.
    """
    import psutil

    n_samples, n_targets = _size(config, unit, tables)
    n_features = sum(table.values.shape[1] for table in tables)
    n_fitted = _largest_chunk(config, unit, n_targets)
    estimate = _planned(config, n_samples, n_features, n_fitted)
    inputs = _inputs(config, n_samples, n_features, n_targets, n_fitted)
    available = psutil.virtual_memory().available
    allowed = min(memory_limit(config) or available, available)
    needed = inputs + estimate.peak_memory
    needed += site_memory(config, n_samples, n_fitted, sum(_layers(tables).values()))
    if needed > allowed:
        work = f"a chunk of {n_fitted} of " if config.chunked else ""
        raise ResourceLimitError(
            f"needs about {needed / 2**20:.0f} MB for {n_samples} samples, "
            f"{n_features} features and {work}{n_targets} targets, and may take "
            f"{allowed / 2**20:.3g} MB. Raise --mem, use fewer --nprocs, more "
            "--chunks, --low-mem, or a smaller --mask."
        )


def _size(
    config: "EncodeConfig", unit: EncodingUnit, tables: "Sequence[FeatureTable]"
) -> tuple[int, int]:
    """Number of samples and of targets, read from headers."""
    if unit.datatype == "func":
        from neuromm_pipelines.encode_bold import bold_size

        return bold_size(unit.study, config.bold)
    from neuromm_pipelines.encode_epochs import epochs_size

    return epochs_size(unit.study, tables, config.epochs, config.trial_type)


def _largest_chunk(config: "EncodeConfig", unit: EncodingUnit, n_targets: int) -> int:
    """Targets of the largest chunk; the time bins of a site are not cut apart."""
    n_bins = 1
    if config.sites is not None and unit.datatype != "func":
        from neuromm_pipelines.encode_epochs import epochs_bins

        n_bins = epochs_bins(unit.study, config.epochs)
    return -(-(n_targets // n_bins) // config.chunks) * n_bins


def _layers(tables: "Sequence[FeatureTable]") -> dict[str, int]:
    """Numbers of layers of the spaces that choose among several."""
    told = {table.name: str(table.attrs.get("candidates", "")) for table in tables}
    return {name: len(text.split()) for name, text in told.items() if text}


def _inputs(
    config: "EncodeConfig",
    n_samples: int,
    n_features: int,
    n_targets: int,
    n_fitted: int,
) -> int:
    """Bytes of features and responses; a chunk's responses are a copy of their own."""
    copied = n_fitted if config.chunked else 0
    return 8 * n_samples * (n_features + n_targets + copied)


def _planned(
    config: "EncodeConfig", n_samples: int, n_features: int, n_targets: int
) -> "Plan":
    """Plan of the fits, in batches that keep the memory limit where that can be."""
    from neuromm.encoding import plan

    sizes = (n_samples, n_features, n_targets)
    dtype = np.float32 if config.low_mem else np.float64
    n_alphas = len(config.model.alphas)
    limit = None if config.chunked else memory_limit(config)
    try:
        return plan(*sizes, n_alphas=n_alphas, dtype=dtype, memory_limit=limit)
    except ResourceLimitError:
        return plan(*sizes, n_alphas=n_alphas, dtype=dtype, memory_limit=None)


def _total_seconds(
    seconds: float, tables: "Sequence[FeatureTable]", config: "EncodeConfig"
) -> float:
    concatenated = config.model.joint and "joint" not in config.features
    n_models = len(tables) + (concatenated and len(tables) > 1)
    return seconds * (n_models + n_site_models(config, _layers(tables)))
