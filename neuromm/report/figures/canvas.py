"""What all pictures share: size, type, colours, and bytes without a date.

Figures are made without pyplot's registry: nothing is shown, no back end is switched.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BAR_PLACE",
    "SEQUENTIAL",
    "Picture",
    "canvas",
    "colour_bar",
    "colour_map",
    "png",
    "said",
    "score_limits",
    "space_colours",
    "style",
]

_DPI = 110
# Dark is high, so that low scores fade into white paper; the pale and the black end
# of magma are cut off. Perceptually uniform (van der Walt & Smith).
SEQUENTIAL = ("magma_r", 0.08, 0.92)
_DIVERGING = ("RdBu_r", 0.0, 1.0)

BAR_PLACE = (0.915, 0.2, 0.012, 0.6)  # of the colour bar of a row of brains

# Okabe & Ito: told apart by the colour-blind.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_JOINT = "#333333"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes
    ----------
    png : bytes
    alt : str
        What it shows, for those who cannot see it.
    caption : str
    """

    png: bytes
    alt: str
    caption: str


@contextmanager
def style() -> Iterator[None]:
    """Use the report's type and lines, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def canvas(width: float, height: float, *, constrained: bool = True) -> Any:
    """Empty figure, in inches, that pyplot does not know of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(width, height),
        dpi=_DPI,
        layout="constrained" if constrained else None,
    )
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    """Figure as PNG; no software version or date in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def colour_map(*, signed: bool = False) -> Any:
    """Colours of scores: white to dark from 0 on, or blue over white to red."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    name, low, high = _DIVERGING if signed else SEQUENTIAL
    colours = mpl.colormaps[name](np.linspace(low, high, 256))
    return ListedColormap(colours, name=f"{name}-report")


def score_limits(
    *values: NDArray[np.floating], signed: bool = False
) -> tuple[float, float]:
    """Ends of the colour bar, the same for all maps that are to be compared.

    The upper end is the 99.9th percentile, rounded up to a multiple of 0.1: a single
    voxel does not set the scale.
    """
    joined = np.concatenate([np.ravel(v) for v in values]) if values else np.zeros(0)
    finite = joined[np.isfinite(joined)]
    finite = np.abs(finite) if signed else finite[finite > 0]
    top = float(np.percentile(finite, 99.9)) if finite.size else 0.0
    top = max(0.1, np.ceil(round(top / 0.1, 6)) * 0.1)
    return (-top, top) if signed else (0.0, float(top))


def colour_bar(
    figure: Any,
    limits: tuple[float, float],
    label: str,
    *,
    axes: Any = None,
    place: tuple[float, float, float, float] | None = None,
    cmap: Any = None,
) -> None:
    """Vertical colour bar with its quantity, beside ``axes`` or at ``place``."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(*limits), cmap or colour_map())
    if place is not None:
        bar = figure.colorbar(mappable, cax=figure.add_axes(place))
    else:
        bar = figure.colorbar(mappable, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label(label)
    bar.set_ticks(np.linspace(*limits, 3))
    bar.outline.set_visible(False)


def said(measure: str) -> str:
    """Name of a measure beside a colour bar."""
    return "Pearson's r" if measure == "r" else measure


def space_colours(spaces: Sequence[str]) -> dict[str, str]:
    """A colour a feature space; ``joint`` is always dark grey."""
    single = [space for space in spaces if space != "joint"]
    colours = {s: _PALETTE[i % len(_PALETTE)] for i, s in enumerate(single)}
    return {space: colours.get(space, _JOINT) for space in spaces}
