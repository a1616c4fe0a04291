"""Small backbones without weights: image statistics, hashed text, and their product.

They let everything run offline. They are stand-ins, and every table says so: a result
from them is none about a network.

References
----------
Torralba & Oliva (2003) Statistics of natural image categories. Network 14: 391-412.
Weinberger et al. (2009) Feature hashing for large scale multitask learning. ICML.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import (
    Attrs,
    Backbone,
    Choices,
    Modality,
    TokenStates,
    WordInContext,
    stimulus_pairs,
)
from neuromm.features.color_statistics import ColorStatistics
from neuromm.features.image_pixels import read_pixels
from neuromm.features.text_transformer import text_of, word_means

__all__ = ["STAND_INS", "HashedText", "ImageStatistics", "ImageTextProduct", "stand_in"]

_WORD = re.compile(r"\w+(?:'\w+)*")
_VERSION = "1"  # raised when the numbers change: cached features are then made anew


class ImageStatistics:
    """Colour, contrast and spatial-frequency energy of images.

    An image is stretched to 64 x 64 pixels. A token is a cell of a 4 x 4 grid: mean and
    standard deviation of brightness, red-green and blue-yellow, in [-1, 1]. The
    embedding holds the cells, then the log energy of brightness in 5 octaves of spatial
    frequency x 6 orientations.
    """

    name = "image-statistics"
    modality: Modality = "image"
    _SIZE, _GRID, _OCTAVES, _ORIENTATIONS = 64, 4, 5, 6

    def __init__(self) -> None:
        self.dim = 6 * self._GRID**2 + self._OCTAVES * self._ORIENTATIONS
        self._bands = self._make_bands()

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        return _attrs(self.name, "stretched to 64 x 64 pixels", "4 x 4 cells, spectrum")

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n images to an array of shape (n, dim)."""
        _check_some(stimuli)
        rows = []
        for stimulus in stimuli:
            channels = self._channels(stimulus)
            cells = self._cells(channels).reshape(-1)
            rows.append(np.concatenate([cells, self._spectrum(channels[0])]))
        return np.stack(rows).astype(np.float32)

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the statistics of the 16 cells of each image, row by row."""
        return [
            TokenStates(self._cells(self._channels(s)).astype(np.float32))
            for s in stimuli
        ]

    def _channels(self, stimulus: object) -> NDArray[np.float64]:
        from PIL import Image

        size = (self._SIZE, self._SIZE)
        small = Image.fromarray(read_pixels(stimulus)).resize(
            size, Image.Resampling.BILINEAR
        )
        red, green, blue = np.moveaxis(np.asarray(small) / 255.0, -1, 0)
        return np.stack(
            [(red + green + blue) / 3, red - green, blue - (red + green) / 2]
        )

    def _cells(self, channels: NDArray[np.float64]) -> NDArray[np.float64]:
        side = self._SIZE // self._GRID
        cut = channels.reshape(3, self._GRID, side, self._GRID, side)
        moments = np.concatenate([cut.mean(axis=(2, 4)), cut.std(axis=(2, 4))])
        return moments.reshape(6, -1).T

    def _spectrum(self, brightness: NDArray[np.float64]) -> NDArray[np.float64]:
        window = np.hanning(self._SIZE)
        flat = (brightness - brightness.mean()) * np.outer(window, window)
        power = np.abs(np.fft.fft2(flat)) ** 2 / flat.size
        # The floor is the energy of rounding to 8 bits, in which differences mean
        # nothing.
        energy = np.log(self._bands @ power.ravel() + 1 / 255**2)
        return np.asarray(energy, dtype=np.float64)

    def _make_bands(self) -> NDArray[np.float64]:
        """One row a band: 1 where a frequency lies in its octave and orientation."""
        frequency = np.fft.fftfreq(self._SIZE, 1 / self._SIZE)
        y, x = np.meshgrid(frequency, frequency, indexing="ij")
        octave = np.floor(np.log2(np.maximum(np.hypot(x, y), 0.5)))
        step = np.pi / self._ORIENTATIONS
        angle = np.arctan2(y, x) % np.pi
        sector = np.rint(angle / step).astype(int) % self._ORIENTATIONS
        return np.stack(
            [
                ((octave == level) & (sector == turn)).ravel().astype(float)
                for level in range(self._OCTAVES)
                for turn in range(self._ORIENTATIONS)
            ]
        )


class HashedText:
    """Words and their letters, hashed into a fixed number of columns.

    A token is a word: itself and its three-letter pieces, each added with a sign to a
    column that SHA-256 chooses, at length 1. A text is the mean of its tokens, at
    length 1; a `WordInContext` is its word with half of the mean of the context before.
    """

    name = "hashed-text"
    modality: Modality = "text"
    dim = 256

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        return _attrs(self.name, "lower case, words and three-letter pieces", "words")

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n texts to an array of shape (n, dim)."""
        _check_some(stimuli)
        states = self.tokens(stimuli)
        own = word_means(states, stimuli, lambda state: state.values.mean(axis=0))
        for row, state, stimulus in zip(own, states, stimuli, strict=True):
            if isinstance(stimulus, WordInContext) and state.spans is not None:
                before = state.values[state.spans[:, 1] <= stimulus.start]
                if len(before):
                    row += 0.5 * before.mean(axis=0)
        return _unit(own)

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Give the hashed words of each text.

        Raises
        ------
        DataError
            If a text has no word.
        """
        found = []
        for stimulus in stimuli:
            text = text_of(stimulus)
            words = list(_WORD.finditer(text)) or list(re.finditer(r"\S+", text))
            values = np.stack([self._hashed(word.group().lower()) for word in words])
            spans = np.array([word.span() for word in words], dtype=np.intp)
            found.append(TokenStates(_unit(values), spans))
        return found

    def _hashed(self, word: str) -> NDArray[np.float32]:
        padded = f"<{word}>"
        pieces = [padded[i : i + 3] for i in range(len(padded) - 2)]
        row = np.zeros(self.dim, dtype=np.float32)
        for piece in (f"={word}", *pieces):
            digest = hashlib.sha256(piece.encode()).digest()
            column = int.from_bytes(digest[:4], "little") % self.dim
            row[column] += 1.0 if digest[4] & 1 else -1.0
        return row


class ImageTextProduct:
    """Image and text together: what each holds, and products that neither holds alone.

    Both embeddings are projected to 64 columns by fixed random matrices; the row holds
    image, text, and 64 products of the two, each centred at 0.
    """

    name = "image-text-product"
    modality: Modality = "joint"
    _WIDTH = 64

    def __init__(self) -> None:
        self.dim = 3 * self._WIDTH
        self._image, self._text = ImageStatistics(), HashedText()
        rng = np.random.default_rng(0)
        self._from_image = _projection(rng, self._image.dim, self._WIDTH)
        self._from_text = _projection(rng, self._text.dim, self._WIDTH)

    @property
    def attrs(self) -> Attrs:
        """What a table says of the backbone."""
        steps = (
            f"{self._image.attrs['preprocessing']}; {self._text.attrs['preprocessing']}"
        )
        return _attrs(self.name, steps, "image, text and products")

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n pairs (image, text) to an array of shape (n, dim)."""
        _check_some(stimuli)
        images, texts = stimulus_pairs(stimuli)
        image = self._image.embed(images) @ self._from_image
        text = self._text.embed(texts) @ self._from_text
        return np.hstack([image, text, image * text]).astype(np.float32)

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Image, text and products have no tokens in common.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(
            f"{self.name} has no tokens: take those of {self._image.name} or "
            f"{self._text.name}"
        )


STAND_INS: dict[str, Callable[[], Backbone]] = {
    ImageStatistics.name: ImageStatistics,
    ColorStatistics.name: ColorStatistics,
    HashedText.name: HashedText,
    ImageTextProduct.name: ImageTextProduct,
}


def stand_in(name: str, *, random: bool, choices: Choices) -> Backbone:
    """Make a backbone without weights.

    Raises
    ------
    UsageError
        If a random twin, a layer, a pooling or another modality is asked for.
    """
    backbone = STAND_INS[name]()
    if random:
        raise UsageError(
            f"{name} has no weights, so there is no random twin of it: use a trained "
            "network to compare training with chance"
        )
    asked = [
        key for key in ("layer", "pooling", "max_tokens") if choices[key] is not None
    ]  # type: ignore[literal-required]
    if asked:
        raise UsageError(f"{name} has no {asked[0]} to choose: leave it out")
    if choices["modality"] not in (None, backbone.modality):
        raise UsageError(
            f"{name} takes {backbone.modality} stimuli, not {choices['modality']}"
        )
    return backbone


def _attrs(name: str, preprocessing: str, layer: str) -> dict[str, str | int | float]:
    identity = f"{name} {_VERSION}"
    return {
        "model": name,
        "kind": "stand-in",
        "layer": layer,
        "pooling": "none",
        "preprocessing": preprocessing,
        "weights_sha256": hashlib.sha256(identity.encode()).hexdigest(),
    }


def _check_some(stimuli: Sequence[object]) -> None:
    if not len(stimuli):
        raise DataError("no stimuli: expected one or more")


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, np.finfo(np.float32).tiny))


def _projection(
    rng: np.random.Generator, n_from: int, n_to: int
) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = rng.standard_normal((n_from, n_to)) / np.sqrt(n_from)
    return matrix
