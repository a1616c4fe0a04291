"""A trained model in a folder: ``config.json`` and ``model.safetensors``.

The settings name the SHA-256 of the weights and are written after them, so a folder
never passes for a model when a process was killed between the two.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from neuromm import __version__
from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import atomic_path, file_digest, read_json, write_json

__all__ = [
    "config_from_json",
    "load_into",
    "load_model",
    "read_config",
    "read_tensors",
    "save_model",
    "write_tensors",
]

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)
_CONFIG, _WEIGHTS, _FORMAT = "config.json", "model.safetensors", 1


def save_model(model: nn.Module, config: Any, folder: str | Path) -> Path:
    """Write settings and weights of a model and return the folder.

    Parameters
    ----------
    model : nn.Module
        Its class name goes into the file; a model of another class refuses it.
    config : dataclass instance
    folder : path-like
        Made if it is not there. An older model in it is replaced.
    """
    folder = Path(folder)
    weights = write_tensors(folder / _WEIGHTS, model.state_dict())
    write_json(
        folder / _CONFIG,
        {
            "format": _FORMAT,
            "model": type(model).__name__,
            "neuromm": __version__,
            "weights_sha256": file_digest(weights),
            "config": dataclasses.asdict(config),
        },
    )
    return folder


def read_config(folder: str | Path, model: str, config_type: type[C]) -> C:
    """Settings of the model in a folder.

    Parameters
    ----------
    folder : path-like
    model : str
        Name of the class that the folder must hold.
    config_type : type
        A dataclass; nested dataclasses and tuples are built from their annotations.

    Raises
    ------
    InputMissingError
        If the folder lacks one of the two files.
    UsageError
        If it holds another model, or was written in another format.
    DataError
        If the settings are damaged, or the weights are not those they belong to.
    """
    folder = Path(folder)
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise InputMissingError(
                f"{folder} has no {name}: expected a folder that save_pretrained wrote"
            )
    content = read_json(folder / _CONFIG)
    if content.get("model") != model or content.get("format") != _FORMAT:
        raise UsageError(
            f"{folder} holds {content.get('model', 'no model')} in format "
            f"{content.get('format')}, expected {model} in format {_FORMAT}"
        )
    if content.get("weights_sha256") != file_digest(folder / _WEIGHTS):
        raise DataError(
            "are not the weights that config.json was written with (a killed process, "
            "a damaged copy, or files of two models): copy or save the model again",
            folder / _WEIGHTS,
        )
    try:
        return config_from_json(config_type, content["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the settings are damaged ({error})", folder / _CONFIG) from (
            error
        )


def load_model(
    model_type: Callable[[C], M], config_type: type[C], folder: str | Path
) -> M:
    """Model of a folder that `save_model` wrote, in evaluation mode, on CPU.

    Parameters
    ----------
    model_type : type
        Its name must be that of the model in the folder.
    config_type : type
        Of its settings, a dataclass.
    folder : path-like

    Raises
    ------
    InputMissingError, UsageError, DataError
        As `read_config` and `load_into`.
    """
    model = model_type(read_config(folder, model_type.__name__, config_type))
    load_into(model, folder)
    model.eval()
    return model


def load_into(model: nn.Module, folder: str | Path) -> None:
    """Put the weights of a folder into a model whose settings are those of it.

    Raises
    ------
    DataError
        If names or shapes differ, told before any is changed.
    """
    path = Path(folder) / _WEIGHTS
    model.load_state_dict(read_tensors(path, model.state_dict()))


def config_from_json(config_type: type[C], content: Mapping[str, Any]) -> C:
    """Build a dataclass from what `dataclasses.asdict` and JSON made of it."""
    hints = typing.get_type_hints(config_type)
    unknown = sorted(set(content) - set(hints))
    if unknown:
        raise ValueError(f"{config_type.__name__} has no setting {unknown[0]!r}")

    def built(hint: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return config_from_json(hint, value)
        if isinstance(value, list):
            return tuple(value)
        return value

    return config_type(**{name: built(hints[name], content[name]) for name in content})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write tensors as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    # The format knows neither strides nor views of one memory.
    plain = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in tensors.items()
    }
    with atomic_path(path) as temporary:
        save_file(plain, temporary)
    return Path(path)


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file, held to names and shapes before they are read.

    Raises
    ------
    DataError
        If the file is damaged, or a tensor is missing, unknown or of another shape.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            wrong = sorted(names ^ set(expected))
            if wrong:
                raise DataError(
                    f"{wrong[0]} is in the {'file' if wrong[0] in names else 'model'} "
                    f"alone, as are {len(wrong) - 1} others: do the settings belong to "
                    "these weights?",
                    path,
                )
            for name, tensor in expected.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(tensor.shape):
                    raise DataError(
                        f"{name} has shape {shape}, expected {tuple(tensor.shape)}: "
                        "do the settings belong to these weights?",
                        path,
                    )
            return {name: torch.as_tensor(file.get_tensor(name)) for name in expected}
    except SafetensorError as error:
        raise DataError(f"is no whole safetensors file ({error})", path) from error
