"""The files that a unit is computed from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuromm.core import InputMissingError, Sample
from neuromm.core.provenance import config_digest
from neuromm_pipelines.units import STATE_FOLDER

if TYPE_CHECKING:
    from neuromm_pipelines.encode import EncodeConfig

__all__ = ["input_files", "input_stamps"]


def input_files(config: "EncodeConfig", samples: Sequence[Sample]) -> dict[str, Path]:
    """Each file that is read, by a name that survives a move of the data set.

    Returns
    -------
    files : dict of str to Path
        Path relative to its data set (``fmriprep:sub-01/…`` in a derivative), sorted.

    Raises
    ------
    InputMissingError
        If a feature table is not there.
    """
    roots = {"": config.bids_dir, **{f"{k}:": v for k, v in config.derivatives.items()}}
    files = [path for sample in samples for path in _recording_files(sample)]
    files += [path for sample in samples for path in sample.companions.values()]
    if config.bold.mask is not None:
        files.append(config.bold.mask)
    named = {}
    for path in files:
        holders = [
            (prefix, root)
            for prefix, root in roots.items()
            if path.resolve().is_relative_to(root.resolve())
        ]
        if holders:
            # The innermost root: derivatives often lie inside of the raw data set.
            prefix, root = max(holders, key=lambda item: len(str(item[1].resolve())))
            relative = path.resolve().relative_to(root.resolve())
            named[f"{prefix}{relative.as_posix()}"] = path
        else:
            named[path.name] = path
    for name, source in config.features.items():
        if not source.exists():
            raise InputMissingError(f"the features {name} are not there: {source}")
        for path in _files_of(source):
            named[f"features:{name}/{path.name}"] = path
    return dict(sorted(named.items()))


def _recording_files(sample: Sample) -> list[Path]:
    if sample.source is None:
        return []
    source = sample.source
    if "hemi-L" in source.name:
        return [source, source.with_name(source.name.replace("hemi-L", "hemi-R"))]
    if source.is_dir():
        return _files_of(source)
    # A BrainVision recording is three files of one name, an EEGLAB one two.
    stem = source.name.removesuffix(".gz").rpartition(".")[0]
    beside = [p for p in source.parent.glob(f"{stem}.*") if p.is_file()]
    return sorted({source, *beside})


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(item for item in path.rglob("*") if item.is_file())
    return [path]


def input_stamps(config: "EncodeConfig", samples: Sequence[Sample]) -> dict[str, str]:
    """Size and time of change of each file, and the digest of merged sidecars.

    Tables that were computed here bear a digest of their content in their names. Their
    time says when that was done, which differs from run to run.
    """
    computed = (config.output_dir / STATE_FOLDER / "features").resolve()
    stamps = {
        name: f"{path.stat().st_size} bytes"
        + ("" if path.parent.resolve() == computed else f", {path.stat().st_mtime_ns}")
        for name, path in input_files(config, samples).items()
    }
    for sample in samples:
        name = sample.source.name if sample.source else "recording"
        stamps[f"sidecars of {name}"] = config_digest(sample.metadata)
    return stamps
