"""Images through a vision model of `transformers`."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import Attrs, Modality, TokenStates
from neuromm.features.image_pixels import ImagePreparation
from neuromm.features.layer_hooks import LayerReading, module_layers, pooled_output
from neuromm.features.torch_backbone import weights_sha256

__all__ = ["ImageTransformer"]


class ImageTransformer:
    """A vision model of `transformers`; made by `load_backbone`.

    Its own pooling is the class token where it has one, else the mean over the patches.
    Without a layer it embeds with the output of the model, after its last norm, as
    published vectors are; hidden states lie before that norm.

    Attributes
    ----------
    name, dim, modality, attrs
        See `Backbone`.
    state_dims : tuple of int
        Length of an embedding by each hidden state.
    module : torch.nn.Module
    """

    modality: Modality = "image"

    def __init__(
        self,
        model: Any,
        *,
        preparation: ImagePreparation,
        name: str,
        kind: str,
        seed: int | None,
        layer: int | None,
        pooling: Literal["mean", "first", "last"] | None,
        batch_size: int,
        device: str,
    ) -> None:
        self.module = model
        self.name = name
        self._preparation = preparation
        self._layer = layer
        self._batch_size = batch_size
        self._device = device
        self._kind, self._seed = kind, seed
        self.state_dims = self._state_widths()
        self.dim = self.state_dims[-1 if layer is None else layer]
        has_class = any("cls_token" in key for key, _ in model.named_parameters())
        has_class |= any(
            "class_embedding" in key for key, _ in model.named_parameters()
        )
        self._pooling = pooling or ("first" if has_class else "mean")

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        return {
            "model": self.name,
            "kind": self._kind,
            **({} if self._seed is None else {"seed": self._seed}),
            "layer": "output" if self._layer is None else f"hidden state {self._layer}",
            "pooling": self._pooling,
            "preprocessing": self._preparation.description,
            "weights_sha256": weights_sha256(self.module),
        }

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n images to an array of shape (n, dim)."""
        parts = [
            pooled_output(self._states(batch), self._pooling)
            for batch in self._batches(stimuli)
        ]
        return np.concatenate(parts)

    def hidden_states(
        self, stimuli: Sequence[object], layers: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """Map n images to an array (n, dim) for each of these hidden states."""
        parts: list[list[NDArray[np.float32]]] = [[] for _ in layers]
        for batch in self._batches(stimuli):
            states = self._output(self._pixels(batch)).hidden_states
            for part, layer in zip(parts, layers, strict=True):
                part.append(pooled_output(states[layer], self._pooling))
        return [np.concatenate(part) for part in parts]

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the hidden state of each patch (and class token) of each image."""
        found = []
        for batch in self._batches(stimuli):
            states = self._states(batch).float().cpu()
            if states.ndim == 4:
                states = states.flatten(2).movedim(1, 2)
            found += [TokenStates(np.array(row)) for row in states.numpy()]
        return found

    def layers(
        self, stimuli: Sequence[object], reading: LayerReading
    ) -> dict[str, NDArray[np.float32]]:
        """Map n images to an array (n, n_features) for each layer.

        See `module_layers`.
        """
        return module_layers(
            self.module,
            {"pixel_values": self._pixels(stimuli)},
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

    def _pixels(self, stimuli: Sequence[object]) -> Any:
        import torch

        return torch.from_numpy(self._preparation(stimuli)).to(self._device)

    def _states(self, stimuli: Sequence[object]) -> Any:
        output = self._output(self._pixels(stimuli))
        if self._layer is None:
            return output.last_hidden_state
        return output.hidden_states[self._layer]

    def _output(self, pixels: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.module(pixel_values=pixels, output_hidden_states=True)

    def _state_widths(self) -> tuple[int, ...]:
        """Channels of each hidden state, found with one grey image."""
        from PIL import Image

        grey = self._pixels([Image.new("RGB", (64, 64), "grey")])
        states = self._output(grey).hidden_states
        if not states:
            raise UsageError(f"{self.name} shows no hidden states")
        if self._layer is not None and not (-len(states) <= self._layer < len(states)):
            raise UsageError(
                f"{self.name} has hidden states 0 to {len(states) - 1} (0 is the "
                f"embedding layer), got {self._layer}"
            )
        return tuple(
            int(one.shape[1] if one.ndim == 4 else one.shape[-1]) for one in states
        )
