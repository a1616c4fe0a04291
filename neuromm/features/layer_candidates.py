"""Several hidden states of one network as candidates of one feature space.

All are read in one pass and lie side by side in one table, so that a layer can be
chosen for each target where responses are known: inside the training folds of a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuromm.core import DataError, UsageError
from neuromm.features.backbones import Attrs, Backbone, Modality, TokenStates

__all__ = [
    "LayerCandidates",
    "candidate_columns",
    "layer_candidates",
    "split_candidates",
]

# Attribute of a table: names and widths of its candidates, such as
# "layer4:768 layer8:768", in the order of the columns.
CANDIDATES = "candidates"


@runtime_checkable
class StatefulBackbone(Backbone, Protocol):
    """A backbone whose hidden states can be embedded with, several in one pass."""

    @property
    def state_dims(self) -> tuple[int, ...]:
        """Length of an embedding by each hidden state, the embedding layer first."""
        ...

    def hidden_states(
        self, stimuli: Sequence[object], layers: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """Map n stimuli to an array (n, dim) for each of these hidden states."""
        ...


def layer_candidates(
    backbone: Backbone, layers: Sequence[int] | None = None
) -> "LayerCandidates":
    """Make a backbone that embeds with several hidden states of another.

    Parameters
    ----------
    backbone : Backbone
        A network of `transformers` or one tower of it, or efficientnet-lite0, as
        `load_backbone` gives it with ``layer=-1``.
    layers : sequence of int, optional
        Hidden states: 0 is the embedding layer, -1 the last one. All if not given.

    Returns
    -------
    candidates : LayerCandidates

    Raises
    ------
    UsageError
        If the backbone has no hidden states, or a layer does not exist or occurs twice.
    """
    if not isinstance(backbone, StatefulBackbone):
        raise UsageError(
            f"{backbone.name} has no hidden states to choose among: expected a folder "
            "of transformers (of a model with two towers, image: or text:), minilm or "
            "efficientnet-lite0"
        )
    n_states = len(backbone.state_dims)
    asked = list(range(n_states) if layers is None else layers)
    wrong = [layer for layer in asked if not -n_states <= layer < n_states]
    if wrong:
        raise UsageError(
            f"{backbone.name} has hidden states 0 to {n_states - 1} (0 is the "
            f"embedding layer), got {', '.join(map(str, wrong))}"
        )
    places = [layer % n_states for layer in asked]
    if len(set(places)) < len(places) or not places:
        raise UsageError(
            f"layers to choose among must be one or more, each once, got {asked} of "
            f"{n_states} hidden states of {backbone.name}"
        )
    return LayerCandidates(backbone, tuple(places))


@dataclass(frozen=True, eq=False)
class LayerCandidates:
    """Hidden states of a network, side by side; made by `layer_candidates`.

    Attributes
    ----------
    inner : StatefulBackbone
    places : tuple of int
        Hidden states, from 0.
    """

    inner: StatefulBackbone
    places: tuple[int, ...]

    @property
    def name(self) -> str:
        """That of the network."""
        return self.inner.name

    @property
    def modality(self) -> Modality:
        """That of the network."""
        return self.inner.modality

    @property
    def dim(self) -> int:
        """Columns of all candidates together."""
        return sum(self._widths)

    @property
    def attrs(self) -> Attrs:
        """What a table says of the network, and which columns are which candidate's."""
        named = [
            f"layer{place}:{width}"
            for place, width in zip(self.places, self._widths, strict=True)
        ]
        return {
            **self.inner.attrs,
            "layer": f"one of hidden states {', '.join(map(str, self.places))}",
            CANDIDATES: " ".join(named),
        }

    @property
    def _widths(self) -> list[int]:
        return [self.inner.state_dims[place] for place in self.places]

    def embed(self, stimuli: Sequence[object]) -> NDArray[np.float32]:
        """Map n stimuli to an array of shape (n, dim)."""
        return np.hstack(self.inner.hidden_states(stimuli, self.places))

    def tokens(self, stimuli: Sequence[object]) -> list[TokenStates]:
        """Vectors of tokens are those of one layer.

        Raises
        ------
        UsageError
            Always: choose the layer first.
        """
        raise UsageError(
            f"tokens of {self.name} are of one layer: load it with layer=N"
        )


def candidate_columns(attrs: Mapping[str, object]) -> list[str] | None:
    """Names of the columns of a table of candidates, ``LAYER/NUMBER``; None for others.

    Parameters
    ----------
    attrs : mapping
        Of the table.

    Raises
    ------
    DataError
        If ``candidates`` is not of the form ``layer4:768 layer8:768``.
    """
    if CANDIDATES not in attrs:
        return None
    return [
        f"{name}/{number}"
        for name, width in _candidates(attrs)
        for number in range(width)
    ]


def split_candidates(features: xr.DataArray) -> xr.DataArray | dict[str, xr.DataArray]:
    """Features at the samples of a recording, apart for each candidate.

    Parameters
    ----------
    features : DataArray, dims (sample, feature)
        Of a table whose attribute ``candidates`` names some; delayed copies
        (``layer4/0@2``) and derivatives stay with their candidate.

    Returns
    -------
    features : DataArray or dict of str to DataArray
        What was given, where there are no candidates.

    Raises
    ------
    DataError
        If a column belongs to no candidate, or a candidate has none.
    """
    if CANDIDATES not in features.attrs:
        return features
    names = [name for name, _ in _candidates(features.attrs)]
    labels = [str(label).partition("/") for label in features["feature"].to_numpy()]
    strangers = ["".join(one) for one in labels if not one[1] or one[0] not in names]
    own = {
        name: [place for place, one in enumerate(labels) if one[0] == name]
        for name in names
    }
    if strangers or not all(own.values()):
        raise DataError(
            f"candidates are {', '.join(names)}, and the columns do not fit: expected "
            "names such as "
            f"{names[0]}/0" + (f", got {strangers[0]}" if strangers else "")
        )
    parts = {}
    for name, places in own.items():
        part = features.isel(feature=places)
        parts[name] = part.assign_coords(feature=[labels[one][2] for one in places])
    return parts


def _candidates(attrs: Mapping[str, object]) -> list[tuple[str, int]]:
    told = str(attrs[CANDIDATES])
    pairs = [one.rpartition(":") for one in told.split()]
    names = [name for name, _, _ in pairs]
    if (
        not pairs
        or len(set(names)) < len(names)
        or not all(n and "/" not in n and w.isdigit() for n, _, w in pairs)
    ):
        raise DataError(
            "the attribute candidates must name layers and their numbers of columns, "
            f"such as 'layer4:768 layer8:768', got {told!r}"
        )
    return [(name, int(width)) for name, _, width in pairs]
