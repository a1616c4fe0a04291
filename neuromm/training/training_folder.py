"""State of a training run on disk, so that a killed run goes on to the same numbers.

A folder holds ``training.json``, which names all that counts with its SHA-256; the
state after the last whole epoch; the weights of the best epoch; and ``log.jsonl``, one
line an epoch. The manifest is written last, so it is true whenever the process ends.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuromm.core import DataError, UsageError
from neuromm.core.files import (
    file_digest,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)
from neuromm.models.checkpoint import write_tensors

__all__ = ["RunState", "TrainingFolder"]

_MANIFEST, _LOG, _FORMAT = "training.json", "log.jsonl", 1


@dataclass(slots=True)
class RunState:
    """How far a run has come.

    Attributes
    ----------
    n_epochs : int
        Whole epochs that are done.
    best_epoch : int
        Counted from 1; 0 before any.
    best_score : float or None
    best_weights : dict of tensors
        The model's state after the best epoch, on the CPU.
    history : list of dict
        One an epoch; None stands for a score that is not defined.
    """

    n_epochs: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class TrainingFolder:
    """Folder of one run.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    settings : mapping
        All that can change a number; what is no JSON counts by the name of its type.

    Raises
    ------
    UsageError
        If the folder holds a run with other settings; the first that differ are named.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self._settings = json.loads(json.dumps(settings, default=_name))

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
        """State of the run in the folder, put into model and optimizer; or a new one.

        Raises
        ------
        UsageError
            If the folder holds another run.
        DataError
            If its files are damaged.
        """
        remove_leftovers(self.folder)
        path = self.folder / _MANIFEST
        if not path.exists():
            return RunState()
        try:
            content = read_json(path)
            if content["format"] != _FORMAT:
                raise UsageError(
                    f"{path} has format {content['format']}, expected {_FORMAT}: it is "
                    "of another version of neuromm"
                )
            self._compare(content["settings"])
            state = RunState(**content["state"])
            files = dict(content["files"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"is damaged ({error}): delete the folder to train anew", path
            ) from error
        last = self._read(files["last"])
        model.load_state_dict(_under("model.", last))
        _load_optimizer(optimizer, _under("optimizer.", last))
        state.best_weights = self._read(files["best"])
        state.history = self._cut_log(state.n_epochs)
        return state

    def save(
        self, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keep the state after an epoch; when this returns, no kill loses it."""
        tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"optimizer.{index}.{name}"] = value
        last = self.folder / f"last-{state.n_epochs:05d}.safetensors"
        best = self.folder / f"best-{state.best_epoch:05d}.safetensors"
        write_tensors(last, tensors)
        if not best.exists() or state.best_epoch == state.n_epochs:
            write_tensors(best, state.best_weights)
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in state.history]
        write_text(self.folder / _LOG, "".join(lines))
        files = {"last": last, "best": best}
        write_json(
            self.folder / _MANIFEST,
            {
                "format": _FORMAT,
                "settings": self._settings,
                "state": {
                    "n_epochs": state.n_epochs,
                    "best_epoch": state.best_epoch,
                    "best_score": state.best_score,
                },
                "files": {
                    name: {"name": file.name, "sha256": file_digest(file)}
                    for name, file in files.items()
                },
            },
        )
        for kind, kept in files.items():
            for file in self.folder.glob(f"{kind}-*.safetensors"):
                if file != kept:
                    file.unlink()

    def _read(self, entry: Mapping[str, str]) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        path = self.folder / Path(entry["name"]).name
        if not path.is_file() or file_digest(path) != entry["sha256"]:
            raise DataError(
                "is missing or not as it was written: delete the folder to train anew",
                path,
            )
        tensors: dict[str, Tensor] = load_file(path)
        return tensors

    def _cut_log(self, n_epochs: int) -> list[dict[str, Any]]:
        """Lines of whole epochs; a kill can leave one more than the manifest has."""
        path = self.folder / _LOG
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[:n_epochs]
            history = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read ({error})", path) from error
        if len(history) != n_epochs:
            raise DataError(f"has {len(history)} lines for {n_epochs} epochs", path)
        return history

    def _compare(self, stored: Mapping[str, Any]) -> None:
        changed = [
            f"{name} was {old!r}, now {new!r}"
            for name, old, new in _differences(stored, self._settings)
        ]
        if changed:
            raise UsageError(
                f"{self.folder} holds another run: {'; '.join(changed[:3])}. Choose "
                "another folder, or delete this one to train anew."
            )


def _name(thing: object) -> str:
    return type(thing).__qualname__


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now)
        elif before != now:
            found.append((name, before, now))
    return found


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
