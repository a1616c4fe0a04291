"""The configuration of a run as JSON, for the merge that comes after a job array."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromm.core.files import read_json, write_json
from neuromm.core.provenance import config_digest
from neuromm_pipelines.chunks import CHUNK_FOLDER
from neuromm_pipelines.encode_settings import (
    BoldSettings,
    EpochSettings,
    ModelSettings,
    SiteSettings,
)

if TYPE_CHECKING:
    from neuromm_pipelines.encode import EncodeConfig

__all__ = ["on_any_machine", "store_config", "stored_configs"]

# What a task of the array may be given of its own.
_OF_A_TASK = {
    "command_line", "debug", "executor", "mem_mb", "nprocs", "omp_nthreads",
    "output_dir", "overwrite", "resume", "scheduler", "skip_bids_validation",
    "stop_on_first_crash", "targets_chunk",
}  # fmt: skip
_PATHS = ("bids_dir", "bids_filter_file")


def store_config(config: "EncodeConfig") -> Path:
    """Keep a configuration beside its chunks; tasks of one array share one file."""
    content = _as_json(config)
    shared = {name: v for name, v in content.items() if name not in _OF_A_TASK}
    path = config.output_dir / CHUNK_FOLDER / f"run-{config_digest(shared)[:12]}.json"
    if not path.exists():
        # The merge reads the data with as many threads as the chunks were fitted with.
        write_json(path, shared | {"omp_nthreads": config.omp_nthreads})
    return path


def stored_configs(output_dir: Path) -> dict[Path, "EncodeConfig"]:
    """Configurations whose chunks lie in an output folder, by their files.

    Raises
    ------
    neuromm.core.DataError
        If a file is damaged.
    """
    return {
        path: _from_json(read_json(path), output_dir)
        for path in sorted((output_dir / CHUNK_FOLDER).glob("run-*.json"))
        if ".tmp-" not in path.name
    }


def on_any_machine(config: "EncodeConfig") -> "EncodeConfig":
    """Make paths absolute, for workers that run in another folder."""
    return _from_json(_as_json(config), Path(os.path.abspath(config.output_dir)))


def _as_json(config: "EncodeConfig") -> dict[str, Any]:
    content: dict[str, Any] = _with_texts(dataclasses.asdict(config))
    # Tables that were computed here move with the output folder: named from it.
    output = Path(os.path.abspath(config.output_dir))
    for name, path in content["features"].items():
        if Path(path).is_relative_to(output):
            content["features"][name] = Path(path).relative_to(output).as_posix()
    return content


def _with_texts(value: Any) -> Any:
    if isinstance(value, Path):
        return os.path.abspath(value)
    if isinstance(value, Mapping):
        return {str(key): _with_texts(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_with_texts(item) for item in value]
    return value


def _from_json(content: Mapping[str, Any], output_dir: Path) -> "EncodeConfig":
    from neuromm_pipelines.encode import EncodeConfig

    values: dict[str, Any] = {k: _with_tuples(v) for k, v in content.items()}
    for name in _PATHS:
        if values[name] is not None:
            values[name] = Path(values[name])
    for name in ("features", "derivatives"):
        # What is absolute stays as it is.
        values[name] = {key: output_dir / path for key, path in values[name].items()}
    if values["bold"]["mask"] is not None:
        values["bold"]["mask"] = Path(values["bold"]["mask"])
    values["bold"] = BoldSettings(**values["bold"])
    values["epochs"] = EpochSettings(**values["epochs"])
    values["model"] = ModelSettings(**values["model"])
    if values.get("sites") is not None:
        values["sites"] = SiteSettings(**values["sites"])
    return EncodeConfig(**{**values, "output_dir": output_dir})


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return value
