"""Any torch module as a backbone."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import Attrs, Modality, Pooling, TokenStates
from neuromm.features.layer_hooks import LayerReading, module_layers, pooled_output

__all__ = ["ModuleBackbone", "module_backbone", "weights_sha256"]


def module_backbone(
    module: Any,
    prepare: Callable[[Sequence[object]], Any],
    *,
    name: str,
    dim: int,
    preprocessing: str,
    modality: Modality = "image",
    kind: str = "trained",
    layer: str | None = None,
    pooling: Pooling = "mean",
    batch_size: int = 32,
    device: str = "cpu",
) -> "ModuleBackbone":
    """Make a backbone of a network that you hold.

    Parameters
    ----------
    module : torch.nn.Module
        Moved to ``device``; it computes in evaluation mode.
    prepare : callable
        Maps a list of n stimuli to the input of the module: an array or tensor of shape
        (n, ...), or a mapping of such by keyword.
    name : str
        As tables and reports print it.
    dim : int
        Length of an embedding.
    preprocessing : str
        Says what ``prepare`` does. It is a part of the key of cached features: change
        it whenever ``prepare`` changes.
    modality : {"image", "text", "joint"}
    kind : str
        "trained", "random twin" or "stand-in"; every table says it.
    layer : str, optional
        Layer whose output is the embedding; the output of the module if not given.
    pooling : {"mean", "first", "last", "flatten"}
        Over tokens, or over height and width.
    batch_size : int
    device : str

    Returns
    -------
    backbone : ModuleBackbone

    Raises
    ------
    UsageError
        If the layer or pooling does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from neuromm.features import module_backbone
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> backbone = module_backbone(
    ...     net,
    ...     lambda images: np.stack(images).astype("float32"),
    ...     name="tiny",
    ...     dim=2,
    ...     preprocessing="none",
    ... )
    >>> backbone.embed([np.zeros((2, 2)), np.ones((2, 2))]).shape
    (2, 2)
    """
    if kind not in ("trained", "random twin", "stand-in"):
        raise UsageError(
            f'kind must be "trained", "random twin" or "stand-in", got {kind!r}'
        )
    return ModuleBackbone(
        module.to(device),
        prepare,
        name=name,
        dim=dim,
        modality=modality,
        layer=layer,
        pooling=pooling,
        batch_size=batch_size,
        device=device,
        about={"kind": kind, "preprocessing": preprocessing},
    )


class ModuleBackbone:
    """A torch module with its preparation; made by `module_backbone`.

    Attributes
    ----------
    name, dim, modality, attrs
        See `Backbone`.
    module : torch.nn.Module
    """

    def __init__(
        self,
        module: Any,
        prepare: Callable[[Sequence[object]], Any],
        *,
        name: str,
        dim: int,
        modality: Modality,
        layer: str | None,
        pooling: Pooling,
        batch_size: int,
        device: str,
        about: Attrs,
    ) -> None:
        self.module = module
        self.name = name
        self.dim = dim
        self.modality = modality
        self._prepare = prepare
        self._layer = layer
        self._reading = LayerReading(
            layers=None if layer is None else (layer,), pooling=pooling
        )
        self._batch_size = batch_size
        self._device = device
        self._about = dict(about)

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone; the digest is that of the weights now."""
        return {
            "model": self.name,
            **self._about,
            "layer": self._layer or "output",
            "pooling": self._reading.pooling,
            "weights_sha256": weights_sha256(self.module),
        }

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n stimuli to an array of shape (n, dim).

        Raises
        ------
        DataError
            If the network gives another number of features, or no row a stimulus.
        """
        if self._layer is not None:
            (values,) = self.layers(stimuli, self._reading).values()
        else:
            parts = [
                pooled_output(self._output(batch), self._reading.pooling)
                for batch in self._batches(stimuli)
            ]
            values = np.concatenate(parts)
        if values.shape[1] != self.dim:
            raise DataError(
                f"{self.name} gives {values.shape[1]} features, expected dim="
                f"{self.dim} as it was made with"
            )
        return values

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the vectors at the positions of the module's output.

        Raises
        ------
        DataError
            If the output is one vector a stimulus.
        """
        found = []
        for batch in self._batches(stimuli):
            output = self._output(batch).float().cpu()
            if output.ndim < 3:
                raise DataError(
                    f"{self.name} gives one vector a stimulus and no tokens (output "
                    f"{tuple(output.shape)}): take a module that ends before pooling"
                )
            tokens = output.movedim(1, -1) if output.ndim > 3 else output
            flat = tokens.reshape(len(tokens), -1, tokens.shape[-1]).numpy()
            found += [TokenStates(np.ascontiguousarray(row)) for row in flat]
        return found

    def layers(
        self, stimuli: Sequence[object], reading: LayerReading
    ) -> dict[str, NDArray[np.float32]]:
        """Map n stimuli to an array (n, n_features) for each layer; see module_layers.

        ``module_layers`` is called once, with batches of ``batch_size``.
        """
        return module_layers(
            self.module,
            self._inputs(stimuli),
            layers=reading.layers,
            pooling=reading.pooling,
            projection_dim=reading.projection_dim,
            seed=reading.seed,
            batch_size=self._batch_size,
        )

    def _batches(self, stimuli: Sequence[object]) -> list[Sequence[object]]:
        if not len(stimuli):
            raise DataError("no stimuli: expected one or more")
        size = self._batch_size
        return [stimuli[i : i + size] for i in range(0, len(stimuli), size)]

    def _inputs(self, stimuli: Sequence[object]) -> Any:
        import torch

        prepared = self._prepare(stimuli)
        if isinstance(prepared, dict):
            return {k: torch.as_tensor(v).to(self._device) for k, v in prepared.items()}
        return torch.as_tensor(prepared).to(self._device)

    def _output(self, stimuli: Sequence[object]) -> Any:
        import torch

        from neuromm.features.layer_hooks import evaluating, first_tensor

        inputs = self._inputs(stimuli)
        with evaluating(self.module), torch.inference_mode():
            output = (
                self.module(**inputs)
                if isinstance(inputs, dict)
                else self.module(inputs)
            )
        tensor = first_tensor(output)
        if tensor is None or len(tensor) != len(stimuli):
            raise DataError(
                f"{self.name} must give a tensor with a row a stimulus, got "
                f"{'none' if tensor is None else tuple(tensor.shape)} for "
                f"{len(stimuli)} stimuli"
            )
        return tensor


def weights_sha256(module: Any) -> str:
    """SHA-256 of the names, types and values of all weights and buffers.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    digest : str
        In hexadecimal; another one for any changed weight.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)};".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
