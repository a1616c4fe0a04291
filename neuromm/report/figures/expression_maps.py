"""Where genes are expressed on a section: predicted beside measured, as spots lie.

Pictures keep the section as the slide shows it: x to the right, y downwards, and a
millimetre as long in both directions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.report.figures.canvas import colour_map, style
from neuromm.report.figures.site_drawing import Drawing, counted, titled_canvas

__all__ = ["SpotPlaces", "gene_maps", "plain_style", "slide_picture"]

_BARS_MM = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)  # the longest that fits
_OUTLINE = "#00588F"
_WIDTH = 9.0  # inches
_PERCENTILES = (1.0, 99.0)
_MANY_DISCS = 8_000  # more vectors make an SVG that none opens


@contextmanager
def plain_style() -> Iterator[None]:
    """The report's style, in which names are no formulas, whatever they hold."""
    import matplotlib as mpl

    with style(), mpl.rc_context({"text.parse_math": False}):
        yield


@dataclass(frozen=True, eq=False)
class SpotPlaces:
    """Where the spots of one section lie.

    Attributes
    ----------
    names : array of str of shape (n_spots,)
    x_mm, y_mm : arrays of shape (n_spots,)
        From the upper left corner of the slide's picture, to the right and downwards.
    diameter_mm : float
        Of a spot.
    """

    names: NDArray[Any]
    x_mm: NDArray[np.float64]
    y_mm: NDArray[np.float64]
    diameter_mm: float

    @property
    def pitch_mm(self) -> float:
        """Median distance to the nearest spot; the diameter of a single one."""
        from scipy.spatial import cKDTree

        if len(self.x_mm) < 2:
            return self.diameter_mm
        points = np.column_stack([self.x_mm, self.y_mm])
        return float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))

    def box_mm(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of what is shown around the spots."""
        margin = max(self.pitch_mm, self.diameter_mm)
        return (
            float(self.x_mm.min() - margin), float(self.x_mm.max() + margin),
            float(self.y_mm.min() - margin), float(self.y_mm.max() + margin),
        )  # fmt: skip


def slide_picture(
    places: SpotPlaces,
    *,
    thumbnail: NDArray[np.uint8] | None = None,
    pixel_mm: float = 1.0,
    title: str = "Section and its spots",
    mark: str = "",
) -> Drawing:
    """The slide with its spots in their true size.

    Parameters
    ----------
    places : SpotPlaces
    thumbnail : array of uint8 of shape (height, width, 3), optional
        Picture of the whole slide; spots alone are drawn without.
    pixel_mm : float
        Size of one of its pixels.
    title : str
    mark : str
        Shown in the figure.

    Returns
    -------
    drawing : Drawing
        Its table holds the spots: ``spot``, ``x_mm``, ``y_mm``.
    """
    left, right, top, bottom = places.box_mm()
    if thumbnail is not None:
        height, width = thumbnail.shape[:2]
        left, right = min(left, 0.0), max(right, width * pixel_mm)
        top, bottom = min(top, 0.0), max(bottom, height * pixel_mm)
    aspect = (bottom - top) / (right - left)
    tall = 3.6 if thumbnail is None else 5.6
    wide = float(np.clip(tall / aspect, 2.8, 7.5))
    with plain_style():
        figure = titled_canvas(wide, wide * aspect * 1.06 + 0.1, title, None, mark=mark)
        axes = figure.subplots()
        if thumbnail is not None:
            extent = (0.0, width * pixel_mm, height * pixel_mm, 0.0)
            axes.imshow(thumbnail, extent=extent, interpolation="antialiased")
        spots = _discs(axes, places, places.diameter_mm)
        spots.set(facecolor="none", edgecolor=_OUTLINE, linewidth=0.7)
        spots.set_rasterized(len(places.x_mm) > _MANY_DISCS)
        _frame(axes, (left, right, top, bottom), scale_bar=True)
    number = counted(len(places.x_mm), "spots")
    beneath = "on the picture of the slide" if thumbnail is not None else "alone"
    told = (
        "The slide lies as in its picture."
        if thumbnail is not None
        else "No picture of the slide was given; it lies as in the picture of full "
        "resolution."
    )
    return Drawing(
        figure,
        pd.DataFrame({"spot": places.names, "x_mm": places.x_mm, "y_mm": places.y_mm}),
        alt=f"{number} {beneath}, as circles in their true size."
        + (f" Marked: {mark}." if mark else ""),
        caption=f"{number} of {places.diameter_mm * 1000:.0f} µm, in their true size, "
        f"{places.pitch_mm * 1000:.0f} µm apart. " + told,
    )


def gene_maps(
    places: SpotPlaces,
    predicted: pd.DataFrame,
    measured: pd.DataFrame | None,
    *,
    unit: str,
    correlations: Mapping[str, float] | None = None,
    title: str = "Predicted expression",
    mark: str = "",
) -> Drawing:
    """Maps of genes, each predicted beside measured on one colour scale.

    Parameters
    ----------
    places : SpotPlaces
    predicted : DataFrame of n_spots rows
        A column a gene, in the order drawn.
    measured : DataFrame or None
        The same genes, where they were measured.
    unit : str
        Of expression, at the colour bars.
    correlations : mapping of str to float, optional
        Said above a gene's maps.
    title : str
    mark : str
        Shown in the figure.

    Returns
    -------
    drawing : Drawing
        Its table holds a row a gene and spot: ``gene``, ``spot``, ``x_mm``, ``y_mm``,
        ``predicted`` and, where there is one, ``measured``.

    Raises
    ------
    UsageError
        If there is no gene, or tables differ in spots or genes.
    """
    _check(places, predicted, measured)
    genes = [str(gene) for gene in predicted]
    kinds = {"predicted": predicted} | (
        {} if measured is None else {"measured": measured}
    )
    n_columns = min(len(genes), 2 if measured is not None else 3)
    n_rows = -(-len(genes) // n_columns)
    left, right, top, bottom = places.box_mm()
    panel = (_WIDTH / n_columns - 1.0) / len(kinds)
    height = float(np.clip(panel * (bottom - top) / (right - left), 0.8, 5.0)) + 0.55
    pitch = places.pitch_mm
    with plain_style():
        figure = titled_canvas(_WIDTH, n_rows * height, title, None, mark=mark)
        grid = figure.subfigures(n_rows, n_columns, squeeze=False).ravel()
        for gene, part in zip(genes, grid, strict=False):
            limits = _limits([table[gene].to_numpy(float) for table in kinds.values()])
            panels = part.subplots(1, len(kinds), squeeze=False)[0]
            for axes, (kind, table) in zip(panels, kinds.items(), strict=True):
                discs = _discs(axes, places, pitch)
                discs.set(array=table[gene].to_numpy(float), edgecolor="none")
                discs.set(cmap=colour_map(), clim=limits)
                discs.set_rasterized(predicted.size * len(kinds) > _MANY_DISCS)
                _frame(axes, (left, right, top, bottom), scale_bar=axes is panels[0])
                axes.set_title(kind if len(kinds) > 1 else "", fontsize=8)
            bar = part.colorbar(
                discs, ax=list(panels), shrink=0.8, pad=0.02, aspect=14, extend="both"
            )
            bar.set_label(unit, fontsize=7)
            bar.ax.tick_params(labelsize=7)
            bar.locator = _few_ticks()
            bar.formatter = _formatter(limits)
            bar.outline.set_visible(False)
            part.suptitle(_heading(gene, correlations), fontsize=9, fontweight="bold")
    return Drawing(
        figure,
        _long(places, kinds),
        alt=f"Maps of {counted(len(genes), 'genes')}, {' beside '.join(kinds)}: "
        + ", ".join(genes)
        + "."
        + (f" Marked: {mark}." if mark else ""),
        caption=_caption(places, kinds),
    )


def _check(
    places: SpotPlaces, predicted: pd.DataFrame, measured: pd.DataFrame | None
) -> None:
    if not len(predicted.columns):
        raise UsageError("maps need one gene at least")
    for table in (predicted, measured):
        if table is None:
            continue
        if len(table) != len(places.x_mm) or list(table) != list(predicted):
            raise UsageError(
                f"predicted and measured must have the same genes and a row for each "
                f"of {len(places.x_mm)} spots, got {table.shape} and {predicted.shape}"
            )


def _discs(axes: Any, places: SpotPlaces, diameter_mm: float) -> Any:
    from matplotlib.collections import EllipseCollection

    sizes = np.full(len(places.x_mm), diameter_mm)
    discs = EllipseCollection(
        sizes, sizes, np.zeros(len(sizes)), units="xy",
        offsets=np.column_stack([places.x_mm, places.y_mm]),
        offset_transform=axes.transData,
    )  # fmt: skip
    axes.add_collection(discs)
    return discs


def _frame(
    axes: Any, box: tuple[float, float, float, float], *, scale_bar: bool
) -> None:
    left, right, top, bottom = box
    # The bar stands below the tissue; every panel leaves the room, so all are equal.
    room = 0.06 * max(bottom - top, right - left)
    axes.set(xlim=(left, right), ylim=(bottom + room, top), aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    if not scale_bar:
        return
    fitting = [bar for bar in _BARS_MM if bar <= 0.4 * (right - left)]
    length = fitting[0] if fitting else _BARS_MM[-1]
    y = bottom + 0.5 * room
    x = left + 0.03 * (right - left)
    axes.plot([x, x + length], [y, y], color="#000000", lw=2, solid_capstyle="butt")
    axes.text(
        x + length + 0.02 * (right - left), y, f"{length:g} mm", fontsize=7,
        ha="left", va="center",
    )  # fmt: skip


def _limits(values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Ends of the colour scale of a gene, for all of its maps."""
    joined = np.concatenate(values)
    joined = joined[np.isfinite(joined)]
    if not joined.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(joined, _PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3)


def _formatter(limits: tuple[float, float]) -> str:
    """As wide on each bar of like values, so that maps stand in columns."""
    places = max(1, 1 - int(np.floor(np.log10(limits[1] - limits[0]))))
    return f"{{x:.{places}f}}"


def _heading(gene: str, correlations: Mapping[str, float] | None) -> str:
    shown = gene if len(gene) <= 28 else gene[:27] + "…"
    r = None if correlations is None else correlations.get(gene)
    if r is None:
        return shown
    return f"{shown}, r n/a" if np.isnan(r) else f"{shown}, r {r:.2f}"


def _long(places: SpotPlaces, kinds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    first = next(iter(kinds.values()))
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "gene": str(gene),
                    "spot": places.names,
                    "x_mm": places.x_mm,
                    "y_mm": places.y_mm,
                    **{kind: table[gene].to_numpy() for kind, table in kinds.items()},
                }
            )
            for gene in first
        ],
        ignore_index=True,
    )


def _caption(places: SpotPlaces, kinds: Mapping[str, Any]) -> str:
    text = (
        "A colour bar belongs to both maps of its gene: where the predicted one is "
        "flatter, the prediction varies less than what was measured, as means do. "
        if len(kinds) > 1
        else "Each gene has its own colour scale. "
    )
    text += (
        f"A scale runs from the {_PERCENTILES[0]:.0f}st to the {_PERCENTILES[1]:.0f}th "
        "percentile; values beyond have the colour of its end. Discs are as wide as "
        f"spots lie apart, {places.pitch_mm * 1000:.0f} µm; a spot measures "
        f"{places.diameter_mm * 1000:.0f} µm."
    )
    return text
