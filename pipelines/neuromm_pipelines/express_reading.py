"""Sections that ``neuromm express fit`` trains on: read whole, or refused early."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neuromm.core import (
    DataError,
    InputMissingError,
    ResourceLimitError,
    UsageError,
)
from neuromm_pipelines.express_data import (
    Encoder,
    Tissue,
    read_spots,
    read_tissue,
    stains_of,
    vector_files,
)
from neuromm_pipelines.express_settings import FeatureSource

if TYPE_CHECKING:
    from neuromm_pipelines.express_fit import Config

__all__ = ["file_stamps", "in_stains", "training_tissues"]


def training_tissues(
    config: "Config", sections: Sequence[Any], encoder: Encoder
) -> list[Tissue]:
    """Every section, with a bar; counts of the genes that all have."""
    from tqdm import tqdm

    counts = _counts(config, sections)
    found = []
    for section, adata in zip(sections, counts, strict=True):
        with tqdm(unit="spot", desc=section.name, disable=None, leave=False) as bar:

            def told(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            found.append(read_tissue(section, adata, encoder, told))
        if len(found) == 1:
            _check_memory(found, sum(one.n_obs for one in counts))
    return found


def _counts(config: "Config", sections: Sequence[Any]) -> list[Any]:
    """Counts of every section: what can be refused is, before hours of features."""
    from neuromm.prepare.spot_quality import doubled_sections

    without = [section.name for section in sections if section.spots is None]
    if without:
        raise InputMissingError(
            f"{', '.join(without)}: a slide without spots has no counts to train on"
        )
    found = {section.name: read_spots(section) for section in sections}
    doubled = doubled_sections(found)
    if doubled:
        raise DataError(
            f"{doubled[0].message}. Keep one with --section-label", sections[0].spots
        )
    shared = set.intersection(*(set(adata.var_names) for adata in found.values()))
    wanted = set(config.gene_list or ())
    if wanted - shared:
        raise UsageError(
            f"--gene-list: not measured in every section: "
            f"{', '.join(sorted(wanted - shared)[:5])}"
        )
    if not wanted and config.genes > len(shared):
        raise UsageError(
            f"--genes {config.genes}: {len(shared)} genes were measured in all "
            f"{len(found)} sections. Are names symbols in some and identifiers in "
            "others?"
        )
    return [
        adata[:, [gene for gene in adata.var_names if gene in shared]]
        for adata in found.values()
    ]


def in_stains(source: FeatureSource, sections: Sequence[Any]) -> FeatureSource:
    """Show all slides in the stains of the first one."""
    if source.kind != "slide":
        raise UsageError(
            "--stain-normalise changes slides, and the features come from "
            f"{source.kind}: leave it out"
        )
    first = sections[0]
    slide = first.open_slide(None if first.spots is None else read_spots(first))
    return replace(source, stains=stains_of(slide))


def _check_memory(found: Sequence[Tissue], n_spots: int) -> None:
    """Tell from the first section what all will take, before they are encoded."""
    import psutil

    first = found[0].features
    own = sum(
        getattr(first, name).nbytes for name in ("target", "neighbors", "overview")
    )
    # As read, scaled, and joined for the training.
    needed = 3 * own * n_spots // max(first.n_spots, 1)
    available = psutil.virtual_memory().available
    if needed > available:
        raise ResourceLimitError(
            f"features of {n_spots:,} spots take {needed / 2**30:.1f} GB in training, "
            f"and {available / 2**30:.1f} GB are free. Take fewer sections "
            "(--section-label), fewer --tiles, or leave out --patch-tokens"
        )


def file_stamps(sections: Sequence[Any], source: FeatureSource) -> dict[str, str]:
    """Size and time of change of each file: what a finished fold was made of."""
    return {
        str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}"
        for section in sections
        for path in [*section.files, *vector_files(section, source)]
    }
