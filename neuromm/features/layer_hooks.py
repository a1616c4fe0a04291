"""Activations of the layers of a torch module, by forward hooks.

After Subramaniam et al. (2024), arXiv 2406.14481: the output of every leaf, duplicates
found by a random projection and removed, dropouts left out.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import Pooling
from neuromm.features.projection import resolved_dim, sparse_projection

__all__ = [
    "LayerReading",
    "evaluating",
    "first_tensor",
    "module_layers",
    "pooled_output",
]

_LOG = logging.getLogger(__name__)
_SIGNATURE_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReading:
    """Which layers are read, and how an activation becomes a vector.

    Attributes
    ----------
    layers : tuple of str or None
        Names as ``module.named_modules()`` gives them, blocks included; None reads
        every leaf once.
    pooling : {"mean", "first", "last", "flatten"}
        Over tokens. Maps with height and width are averaged by "first" and "last" too;
        "flatten" keeps every position.
    projection_dim : int or None
        Columns after a sparse random projection of what pooling leaves.
    seed : int
        Of the projection.
    """

    layers: tuple[str, ...] | None = None
    pooling: Pooling = "mean"
    projection_dim: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            known = ", ".join(f'"{name}"' for name in get_args(Pooling))
            raise UsageError(f"pooling must be one of {known}, got {self.pooling!r}")
        resolved_dim(self.projection_dim, 1)

    @property
    def attrs(self) -> dict[str, str]:
        """The reading as attributes of a table."""
        projected = self.projection_dim is not None
        return {
            "pooling": self.pooling,
            "projection": (
                f"sparse random, {self.projection_dim} columns, seed {self.seed}"
                if projected
                else "none"
            ),
        }


def module_layers(
    module: Any,
    inputs: Any,
    *,
    layers: Sequence[str] | None = None,
    pooling: Pooling = "mean",
    projection_dim: int | Literal["auto"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    mask: ArrayLike | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Activations of the layers of a module, a row a stimulus.

    The module is put into evaluation mode for the time of the call.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : tensor of shape (n_rows, ...), or mapping of str to such tensors
        A mapping is passed by keywords.
    layers : sequence of str, optional
        Names as ``module.named_modules()`` gives them, blocks included. If not given,
        every leaf: dropouts are skipped, and of layers with equal outputs (an Identity,
        a Flatten) the first is kept. ``name:2`` is the second call of a module that is
        called more than once.
    pooling : {"mean", "first", "last", "flatten"}
        Over tokens; see `LayerReading`.
    projection_dim : int, "auto" or None
        Columns after a sparse random projection of what pooling leaves; "auto" is the
        dimension of Johnson and Lindenstrauss for ``n_rows`` and an error of 0.1, as in
        Subramaniam et al. (2024) and scikit-learn. It depends on no value.
    seed : int
        Of the projection.
    batch_size : int, optional
        Rows at once; all if not given.
    mask : array of shape (n_rows, n_tokens), optional
        True for tokens that count; the others are padding, left out of "mean" and
        "last", and zero in "flatten".

    Returns
    -------
    activations : dict of str to array of float32 of shape (n_rows, n_features)
        In the order in which the layers are computed.

    Raises
    ------
    UsageError
        If a layer does not exist, is not called, or gives no row a stimulus.
    DataError
        If the inputs differ in their numbers of rows.

    Notes
    -----
    Outputs whose first axis is not the batch (position embeddings, windows) and outputs
    that are not real numbers are no rows; they are left out, and logged.
    """
    tensors = _tensors(inputs)
    n_rows = _n_rows(tensors)
    reading = LayerReading(
        layers=None if layers is None else tuple(layers),
        pooling=pooling,
        projection_dim=resolved_dim(projection_dim, n_rows),
        seed=seed,
    )
    keep = None if mask is None else np.asarray(mask, dtype=bool)
    batches = []
    for start in range(0, n_rows, batch_size or n_rows):
        rows = slice(start, start + (batch_size or n_rows))
        batch = {name: tensor[rows] for name, tensor in tensors.items()}
        batches.append(
            _read_batch(module, batch, reading, None if keep is None else keep[rows])
        )
    names = list(batches[0].values)
    if reading.layers is None:
        names = _without_duplicates(names, batches)
    else:
        _check_read(reading.layers, batches[0])
    return {name: np.concatenate([b.values[name] for b in batches]) for name in names}


@dataclass(eq=False)
class _Batch:
    """What the hooks of one pass have seen."""

    values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    signatures: dict[str, bytes] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def _read_batch(
    module: Any,
    batch: dict[str, Any],
    reading: LayerReading,
    mask: NDArray[np.bool_] | None,
) -> _Batch:
    import torch

    n_rows = _n_rows(batch)
    if n_rows == 1:
        # With two rows the batch is told apart from other axes of length one.
        batch = {name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}
        mask = None if mask is None else np.repeat(mask, 2, axis=0)
    recorder = _Recorder(reading, max(n_rows, 2), mask)
    with evaluating(module), torch.inference_mode(), ExitStack() as hooks:
        for name, layer in _chosen(module, reading.layers):
            hooks.enter_context(layer.register_forward_hook(recorder.hook(name)))
        if set(batch) == {""}:
            module(batch[""])
        else:
            module(**batch)
    if n_rows == 1:
        recorder.seen.values = {k: v[:1] for k, v in recorder.seen.values.items()}
    if recorder.seen.skipped:
        _LOG.debug("no row a stimulus: %s", ", ".join(recorder.seen.skipped))
    return recorder.seen


class _Recorder:
    def __init__(
        self, reading: LayerReading, n_rows: int, mask: NDArray[np.bool_] | None
    ) -> None:
        self.seen = _Batch()
        self._reading = reading
        self._n_rows = n_rows
        self._mask = mask
        self._calls: dict[str, int] = {}
        self._layout: tuple[tuple[int, ...], int] | None = None

    def hook(self, name: str) -> Any:
        def record(layer: Any, _arguments: Any, output: Any) -> None:
            self._calls[name] = self._calls.get(name, 0) + 1
            call = self._calls[name]
            label = name if call == 1 else f"{name}:{call}"
            wanted = self._reading.layers
            if wanted is None or label in wanted:
                self._keep(label, layer, first_tensor(output))

        return record

    def _keep(self, label: str, layer: Any, output: Any) -> None:
        if (
            output is None
            or not output.is_floating_point()
            or output.ndim == 0
            or output.shape[0] != self._n_rows
        ):
            self.seen.skipped.append(label)
            return
        axis = _channel_axis(layer, output, self._layout)
        self._layout = (tuple(output.shape), axis)
        # Pooled at once: the next layer may write into this output (inplace=True).
        pooled = _pooled(output, axis, self._reading.pooling, self._mask)
        if self._reading.layers is None:
            self.seen.signatures[label] = _signature(output)
        if self._reading.projection_dim is not None:
            pooled = sparse_projection(
                pooled, self._reading.projection_dim, self._reading.seed
            )
        self.seen.values[label] = pooled


def _chosen(module: Any, wanted: tuple[str, ...] | None) -> Iterator[tuple[str, Any]]:
    from torch import nn

    named = dict(module.named_modules())
    if wanted is not None:
        for name in dict.fromkeys(_called(label) for label in wanted):
            if name not in named:
                near = get_close_matches(name, named, n=5, cutoff=0.3)
                raise UsageError(
                    f"the network has no layer {name!r}; near it: {', '.join(near)}"
                )
            yield name, named[name]
        return
    attentions = [n for n, m in named.items() if isinstance(m, nn.MultiheadAttention)]
    for name, layer in named.items():
        # Attention calls no child: its weights go straight to a function.
        inside = any(name.startswith(f"{outer}.") for outer in attentions)
        is_leaf = name in attentions or not any(layer.children())
        if is_leaf and not inside and not _is_dropout(layer):
            yield name, layer


def _called(label: str) -> str:
    name, colon, call = label.rpartition(":")
    return name if colon and call.isdigit() else label


def _is_dropout(layer: Any) -> bool:
    kind = type(layer).__name__.lower()
    return "dropout" in kind or "droppath" in kind or "stochasticdepth" in kind


def _without_duplicates(names: list[str], batches: list[_Batch]) -> list[str]:
    """Keep the first of layers whose outputs are equal in all batches."""
    seen: dict[tuple[bytes, ...], str] = {}
    for name in names:
        seen.setdefault(tuple(batch.signatures[name] for batch in batches), name)
    return list(seen.values())


def _check_read(wanted: tuple[str, ...], batch: _Batch) -> None:
    lacking = [name for name in wanted if name not in batch.values]
    if not lacking:
        return
    why = (
        "gives no row a stimulus"
        if lacking[0] in batch.skipped
        else "is not called when the network runs"
    )
    raise UsageError(
        f"layer {lacking[0]!r} {why}: choose one of those that are read when no layer "
        "is named"
    )


def pooled_output(output: Any, pooling: Pooling) -> NDArray[np.float32]:
    """Pool an output (n_rows, ...) of a network to (n_rows, n_features)."""
    return _pooled(output, 1 if output.ndim > 3 else output.ndim - 1, pooling, None)


def first_tensor(output: Any) -> Any:
    """Tensor that a module gives, the first one of several; None if there is none."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if not isinstance(output, Mapping | tuple | list):
        return None
    return next((v for v in values if isinstance(v, torch.Tensor)), None)


def _channel_axis(
    layer: Any, output: Any, previous: tuple[tuple[int, ...], int] | None
) -> int:
    """Axis of the channels: 1 for maps, the last for tokens."""
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    ndim = int(output.ndim)
    if ndim < 3:
        return ndim - 1
    first = getattr(layer, "data_format", None) == "channels_first"
    if first or type(layer).__name__.endswith("2d"):
        return 1
    if isinstance(layer, _ConvNd | _NormBase | nn.GroupNorm):
        return 1
    if isinstance(layer, nn.Linear | nn.LayerNorm | nn.RMSNorm | nn.Embedding):
        return ndim - 1
    if previous is not None and previous[0] == tuple(output.shape):
        return previous[1]  # an activation leaves the axes where they were
    return 1 if ndim > 3 else ndim - 1


def _pooled(
    output: Any, axis: int, pooling: Pooling, mask: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    import torch

    n_rows = output.shape[0]
    if output.ndim < 3:
        return _copied(output.reshape(n_rows, -1))
    tokens = output.movedim(axis, -1)
    keep = None
    if mask is not None and tokens.ndim == 3 and tokens.shape[1] == mask.shape[1]:
        keep = torch.as_tensor(mask, device=output.device)
    if pooling == "flatten":
        whole = output if keep is None else output.masked_fill(~keep[:, :, None], 0)
        return _copied(whole.reshape(n_rows, -1))
    if pooling == "first" and tokens.ndim == 3:
        return _copied(tokens[:, 0])
    if pooling == "last" and tokens.ndim == 3:
        if keep is None:
            return _copied(tokens[:, -1])
        ranks = torch.arange(keep.shape[1], device=output.device)
        last = torch.where(keep, ranks, 0).amax(dim=1)
        return _copied(tokens[torch.arange(n_rows, device=output.device), last])
    flat = tokens.reshape(n_rows, -1, tokens.shape[-1]).float()
    if keep is None:
        return _copied(flat.mean(dim=1))
    weights = keep[:, :, None].float()
    return _copied((flat * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))


def _copied(values: Any) -> NDArray[np.float32]:
    return np.array(values.detach().float().cpu().numpy(), dtype=np.float32, copy=True)


def _signature(output: Any) -> bytes:
    """Random projection of each row: equal for equal outputs, whatever their shape."""
    import torch

    flat = output.detach().reshape(output.shape[0], -1).double().cpu()
    maker = torch.Generator().manual_seed(_SIGNATURE_SEED)
    direction = torch.randn(flat.shape[1], generator=maker, dtype=torch.float64)
    return bytes((flat @ direction).numpy().tobytes())


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and every part back as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _tensors(inputs: Any) -> dict[str, Any]:
    import torch

    if isinstance(inputs, Mapping):
        return {str(name): torch.as_tensor(value) for name, value in inputs.items()}
    return {"": torch.as_tensor(inputs)}


def _n_rows(tensors: Mapping[str, Any]) -> int:
    counts = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise DataError(
            "inputs must have the same number of rows, one or more; got "
            + ", ".join(f"{name or 'inputs'}: {n}" for name, n in counts.items())
        )
    return next(iter(counts.values()))
