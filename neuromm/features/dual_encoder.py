"""Models with two towers that share a space, such as CLIP: image, text, or both."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import (
    Attrs,
    Backbone,
    Modality,
    TokenStates,
    stimulus_pairs,
)
from neuromm.features.image_pixels import ImagePreparation
from neuromm.features.image_transformer import ImageTransformer
from neuromm.features.layer_hooks import LayerReading, module_layers
from neuromm.features.text_transformer import TextTransformer
from neuromm.features.torch_backbone import weights_sha256

__all__ = ["DualEncoder"]

# SigLIP was trained on texts that are padded to full length, without a mask.
_PADDED = ("siglip", "siglip2")


class DualEncoder:
    """A model with an image tower and a text tower; made by `load_backbone`."""

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        preparation: ImagePreparation,
        max_tokens: int | None,
        name: str,
        kind: str,
        seed: int | None,
        batch_size: int,
        device: str,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.preparation = preparation
        self.max_tokens = max_tokens
        self.about: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "seed": seed,
            "batch_size": batch_size,
            "device": device,
        }

    def tower(
        self,
        modality: Modality,
        *,
        layer: int | None,
        pooling: Literal["mean", "first", "last"] | None,
    ) -> Backbone:
        """Choose what is embedded.

        Without ``layer``, embeddings are those that the training compared: projected,
        and of length 1. With ``layer``, they are hidden states of one tower.
        """
        if layer is None and pooling is None:
            return _Projected(self, modality)
        if modality == "joint":
            raise UsageError(
                'layer and pooling are those of one tower: choose modality="image" or '
                '"text"'
            )
        if modality == "image":
            return ImageTransformer(
                self.model.vision_model,
                preparation=self.preparation,
                layer=layer,
                pooling=pooling,
                **self.about,
            )
        return self.text_tower(layer, pooling or "mean")

    def text_tower(
        self, layer: int | None, pooling: Literal["mean", "first", "last"]
    ) -> TextTransformer:
        """Make a backbone of the hidden states of the text tower."""
        return TextTransformer(
            self.model.text_model,
            tokenizer=self.tokenizer,
            layer=layer,
            pooling=pooling,
            max_tokens=self.max_tokens,
            fixed_length=self.model.config.model_type in _PADDED,
            **self.about,
        )


class _Projected:
    """Embeddings in the shared space; image and text side by side for "joint"."""

    def __init__(self, towers: DualEncoder, modality: Modality) -> None:
        self._towers = towers
        self._text = towers.text_tower(None, "mean")
        self.modality: Modality = modality
        self.module = {
            "image": towers.model.vision_model,
            "text": towers.model.text_model,
            "joint": towers.model,
        }[modality]
        self.name = towers.about["name"]
        width = _projection_width(towers.model)
        self.dim = 2 * width if modality == "joint" else width

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        seed = self._towers.about["seed"]
        steps = []
        if self.modality != "text":
            steps.append(self._towers.preparation.description)
        if self.modality != "image":
            steps.append(str(self._text.attrs["preprocessing"]))
        return {
            "model": self.name,
            "kind": self._towers.about["kind"],
            **({} if seed is None else {"seed": seed}),
            "tower": self.modality,
            "layer": "projection",
            "pooling": "of the model",
            "preprocessing": "; ".join(steps),
            "weights_sha256": weights_sha256(self._towers.model),
        }

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n stimuli to an array of shape (n, dim); each tower's part has length 1.

        A `WordInContext` is taken as its whole text: the projection is of texts.
        """
        if not len(stimuli):
            raise DataError("no stimuli: expected one or more")
        size = self._towers.about["batch_size"]
        parts = [
            self._embedded(stimuli[i : i + size]) for i in range(0, len(stimuli), size)
        ]
        return np.concatenate(parts)

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the last hidden states of the one tower.

        Raises
        ------
        UsageError
            For "joint", since patches and sub-words differ in width.
        """
        found: list[TokenStates] = self._tower().tokens(stimuli)
        return found

    def layers(
        self, stimuli: Sequence[object], reading: LayerReading
    ) -> dict[str, NDArray[np.float32]]:
        """Map n stimuli to an array (n, n_features) for each layer of the towers."""
        if self.modality != "joint":
            found: dict[str, NDArray[np.float32]] = self._tower().layers(
                stimuli, reading
            )
            return found
        images, texts = stimulus_pairs(stimuli)
        fixed = reading.pooling == "flatten" or self._text.fixed_length
        encoded, _, mask = self._text.encoded(texts, fixed=fixed)
        return module_layers(
            self.module,
            {**encoded, "pixel_values": self._pixels(images)},
            layers=reading.layers,
            pooling=reading.pooling,
            projection_dim=reading.projection_dim,
            seed=reading.seed,
            batch_size=self._towers.about["batch_size"],
            mask=mask,
        )

    def _tower(self) -> Any:
        if self.modality == "joint":
            raise UsageError(
                'tokens are those of one tower: load it with modality="image" or "text"'
            )
        if self.modality == "text":
            return self._text
        return self._towers.tower("image", layer=-1, pooling=None)

    def _embedded(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        import torch

        model = self._towers.model
        images, texts = (
            stimulus_pairs(stimuli) if self.modality == "joint" else (stimuli, stimuli)
        )
        parts = []
        with torch.inference_mode():
            if self.modality != "text":
                parts.append(
                    model.get_image_features(pixel_values=self._pixels(images))
                )
            if self.modality != "image":
                encoded, _, _ = self._text.encoded(texts, fixed=self._text.fixed_length)
                parts.append(model.get_text_features(**encoded))
        return np.hstack([_unit_rows(part) for part in parts])

    def _pixels(self, images: Sequence[object]) -> Any:
        import torch

        pixels = torch.from_numpy(self._towers.preparation(images))
        return pixels.to(self._towers.about["device"])


def _unit_rows(output: Any) -> NDArray[np.float32]:
    # A tensor in transformers 4, an output with the projection as its pooler in 5.
    rows = getattr(output, "pooler_output", output).float().cpu().numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, np.finfo(np.float32).tiny))


def _projection_width(model: Any) -> int:
    config = model.config
    width = getattr(config, "projection_dim", None)
    return int(width or config.vision_config.hidden_size)
