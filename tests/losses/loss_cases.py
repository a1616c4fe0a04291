"""Every loss of the package by name: its function, its inputs and a closed form."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import neuromm.losses
from neuromm.losses import Mixing


def _two(rows):
    return rows[0], rows[1]


def _several(rows):
    return rows[0], list(rows[1:])


def _one_other(rows):
    return rows[0], [rows[1]]


def _mixed(rows):
    n_samples = len(rows[0])
    weight = torch.linspace(0.2, 1, n_samples, dtype=torch.float64)
    return rows[0], rows[1], Mixing(torch.arange(n_samples).roll(1), weight)


def _not_mixed(rows):
    n_samples = len(rows[0])
    return rows[0], rows[1], Mixing(torch.arange(n_samples), torch.ones(n_samples))


# Of n orthonormal rows, the same in all modalities, at temperature tau.
def _hard(tau, n):
    return math.log1p((n - 1) * math.exp(-1 / tau))


def _soft(tau, n):
    target = 1 / (1 + (n - 1) * math.exp(-1 / tau))
    return 1 / tau + _hard(tau, n) - target / tau


def _sigmoid(tau, n):
    return math.log1p(math.exp(10 - 1 / tau)) + (n - 1) * math.log1p(math.exp(-10))


def _volume(tau, n):
    # Volumes are 0.001, the floor, for the match and 1 for all others.
    return math.log1p((n - 1) * math.exp(-0.999 / tau)) + _hard(tau, n)


@dataclass(frozen=True)
class LossCase:
    """How a loss is called with a list of row sets, the first being the anchor.

    ``settings`` are of the function and the module alike; ``closed`` is the loss of n
    orthonormal rows that all modalities share, arranged by ``arrange_equal``.
    """

    function: str
    closed: Callable[[float, int], float]
    arrange: Callable[[list[torch.Tensor]], tuple[Any, ...]] = _two
    settings: dict[str, Any] = field(default_factory=dict)
    arrange_equal: Callable[[list[torch.Tensor]], tuple[Any, ...]] | None = None

    def loss(self, rows, **options):
        function = getattr(neuromm.losses, self.function)
        return function(*self.arrange(rows), **self.settings | options)

    def takes(self, option):
        function = getattr(neuromm.losses, self.function)
        return option in inspect.signature(function).parameters


CASES = {
    "InfoNCE": LossCase("info_nce", _hard),
    "SigLIP": LossCase("siglip", _sigmoid),
    "SoftContrastive": LossCase("soft_contrastive", _soft),
    "MultiLevelContrastive": LossCase("multi_level_contrastive", _soft, _several),
    "AnchoredContrastive": LossCase("anchored_contrastive", _hard, _several),
    "GramVolume": LossCase("gram_volume", _volume, _several, arrange_equal=_one_other),
    "InstanceGroup": LossCase("instance_group", _hard, settings={"n_groups": 4}),
    "SoftCLIP": LossCase("soft_clip", _soft),
    "MixCo": LossCase("mixco", _hard, _mixed, arrange_equal=_not_mixed),
}


def module_names():
    """Losses of the package that are modules; `Temperature` is a part of them."""
    values = {name: getattr(neuromm.losses, name) for name in neuromm.losses.__all__}
    return {
        name
        for name, value in values.items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and name != "Temperature"
    }


def function_names():
    """Losses of the package that are functions: what takes a temperature."""
    values = {name: getattr(neuromm.losses, name) for name in neuromm.losses.__all__}
    return {
        name
        for name, value in values.items()
        if inspect.isfunction(value)
        and "temperature" in inspect.signature(value).parameters
    }


def planted_rows(n_samples, width=8, dtype=torch.float64, shared=0.7):
    """Row sets that have a part in common, as leaves."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, n_samples, width)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64)
    rows[1:] += shared * rows[0]
    return [one.to(dtype).requires_grad_(True) for one in rows]


def gradients(loss, rows):
    """Of each row set; zero for one that the loss does not use."""
    return torch.autograd.grad(loss, rows, allow_unused=True, materialize_grads=True)
