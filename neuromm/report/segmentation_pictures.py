"""Pictures of the discs of one volume: sagittal slices, and how sure the network is.

A sagittal slice is seen from the patient's left: anterior is at the left, superior at
the top, and a millimetre is as long in both directions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError
from neuromm.io.mri_grid import check_one_grid
from neuromm.models import DiscRegions
from neuromm.prepare import SagittalOrder
from neuromm.report.figures.canvas import style
from neuromm.report.figures.site_drawing import Drawing, titled_canvas

__all__ = ["disc_slices", "mid_sagittal", "reliability_diagram"]

_FOUND, _REFERENCE = "#E69F00", "#56B4E9"  # of Okabe & Ito
_THICK, _THIN = 2.4, 1.0
_MARGIN_MM = 40.0  # that is shown around the discs
_BARS_MM = (50.0, 20.0, 10.0, 5.0)  # of the scale; the longest that fits
_OBLIQUE_DEG = 3.0  # from here on a word about it
_SLICES = 5
_PANEL_HEIGHT = 4.6  # inches

Box = tuple[slice, slice]


def mid_sagittal(
    image: Any,
    regions: DiscRegions,
    *,
    uncertainty: ArrayLike | None = None,
    reference: DiscRegions | None = None,
    mark: str = "",
) -> Drawing:
    """The slice through the middle of the discs, with masks, numbers and uncertainty.

    Parameters
    ----------
    image : nibabel image of shape (n_i, n_j, n_k)
        What lies below the outlines, on the grid of the discs.
    regions : DiscRegions
    uncertainty : array of shape (n_i, n_j, n_k), optional
        In [0, 1], as `predict_with_uncertainty` gives it; drawn beside the image.
    reference : DiscRegions, optional
        Drawn as thin outlines.
    mark : str
        Shown in the figure, such as that scans are simulated.

    Returns
    -------
    drawing : Drawing
        Its table holds the discs: ``label``, ``centre_x``, ``centre_y``, ``centre_z``
        (RAS, mm) and ``offset_mm``, how far the centre lies from the slice, to the
        right.

    Raises
    ------
    UsageError
        If a volume has another shape than the discs.
    DataError
        If the image lies on another grid.
    """
    view = _View.of(regions, reference)
    values = view.order.turned(_values(image, regions))
    cut = view.cut()
    panels = 1 if uncertainty is None else 2
    with style():
        height_mm, width_mm = view.size_mm(cut)
        panel = max(1.6, _PANEL_HEIGHT * width_mm / height_mm)
        title = f"Discs, slice {view.middle + 1} of {values.shape[0]} from the left"
        figure = titled_canvas(
            max(panels * (panel + 0.7) + 0.3, 4.2),
            _PANEL_HEIGHT,
            title,
            None,
            mark=mark,
        )
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_slice(axes[0], view, values, view.middle, cut)
        _number(axes[0], view, regions, cut)
        _legend(axes[0], reference is not None)
        if uncertainty is not None:
            doubt = view.order.turned(_on_grid("uncertainty", uncertainty, regions))
            _draw_doubt(figure, axes[1], view, doubt, cut)
    named = "the discs that were found"
    named += " and those of the reference" if reference is not None else ""
    beside = "" if uncertainty is None else " Beside it the uncertainty of each voxel."
    return Drawing(
        figure,
        view.table(regions),
        alt=f"Sagittal slice with outlines of {named}, each with its number."
        + beside
        + (f" Marked: {mark}." if mark else ""),
        caption=_caption(view, regions, reference, uncertainty is not None),
    )


def disc_slices(
    image: Any,
    regions: DiscRegions,
    *,
    reference: DiscRegions | None = None,
    mark: str = "",
) -> Drawing:
    """Up to five sagittal slices across the discs, from the left to the right.

    Parameters
    ----------
    image, regions, reference, mark
        As of `mid_sagittal`.

    Returns
    -------
    drawing : Drawing
        Its table holds the slices: ``slice`` (from 1, at the left), ``offset_mm`` (to
        the right of the middle of the discs) and ``area_mm2`` of disc in it.
    """
    view = _View.of(regions, reference)
    values = view.order.turned(_values(image, regions))
    cut = view.cut()
    chosen = view.across()
    with style():
        height_mm, width_mm = view.size_mm(cut)
        panel = max(1.1, 3.0 * width_mm / height_mm)
        figure = titled_canvas(
            len(chosen) * (panel + 0.15), 3.2, "From left to right", None, mark=mark
        )
        axes = figure.subplots(1, len(chosen), squeeze=False)[0]
        for one, index in zip(axes, chosen, strict=True):
            _draw_slice(one, view, values, index, cut, letters=index == chosen[0])
            one.set_title(_signed(view.offset_mm(index)), fontsize=8)
    area = view.spacing[1] * view.spacing[2]
    table = pd.DataFrame(
        {
            "slice": [index + 1 for index in chosen],
            "offset_mm": [view.offset_mm(index) for index in chosen],
            "area_mm2": [np.count_nonzero(view.found[i]) * area for i in chosen],
        }
    )
    return Drawing(
        figure,
        table,
        alt=f"{len(chosen)} sagittal slices with outlines of discs."
        + (f" Marked: {mark}." if mark else ""),
        caption="Slices across the discs; above each how far it lies to the right of "
        "the slice above.",
    )


def reliability_diagram(
    table: pd.DataFrame, error: float, *, mark: str = ""
) -> Drawing:
    """Stated against observed frequency of disc, with the number of voxels below.

    Parameters
    ----------
    table : DataFrame
        Of `neuromm.metrics.reliability_table`.
    error : float
        The expected calibration error.
    mark : str
        Shown in the figure.
    """
    filled = table[table["n_samples"] > 0]
    with style():
        figure = titled_canvas(3.9, 4.4, "Calibration", None, mark=mark)
        upper, lower = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
        )
        upper.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls="--")
        upper.plot(
            filled["confidence"],
            filled["frequency"],
            "o-",
            color="#0072B2",
            ms=4,
            clip_on=False,
        )
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Part that is disc")
        upper.text(0.03, 0.95, f"ECE {error:.3f}", va="top", transform=upper.transAxes)
        widths = table["high"] - table["low"]
        lower.bar(
            table["low"], table["n_samples"], widths, align="edge", color="#BBBBBB",
            edgecolor="white",
        )  # fmt: skip
        lower.set_yscale("symlog", linthresh=1)
        lower.set(xlabel="Stated probability of disc", ylabel="Voxels")
    return Drawing(
        figure,
        table.reset_index(drop=True),
        alt=f"Reliability diagram; expected calibration error {error:.3f}."
        + (f" Marked: {mark}." if mark else ""),
        caption="How often voxels of a stated probability are disc in the reference, "
        "within 10 mm of a disc of either. On the dashed line stated and observed "
        f"agree; ECE is their mean distance, {error:.3f}. Voxels below, on a "
        "logarithmic scale.",
    )


@dataclass(frozen=True)
class _View:
    """Masks turned to the closest axes of the patient: right, anterior, superior."""

    order: SagittalOrder
    found: NDArray[np.bool_]
    true: NDArray[np.bool_] | None
    middle: int
    places: NDArray[np.float64]  # of the centres, in turned voxels

    @classmethod
    def of(cls, regions: DiscRegions, reference: DiscRegions | None) -> "_View":
        order = SagittalOrder(regions.affine)
        affine = order.turned_affine(_three(regions.labels.shape))
        found = order.turned(regions.labels) > 0
        true = None
        if reference is not None:
            labels = _on_grid("the reference", reference.labels, regions)
            true = order.turned(labels) > 0
        rows = (
            regions.table
            if len(regions.table) or reference is None
            else (reference.table)
        )
        centres = rows[["centre_x", "centre_y", "centre_z"]].to_numpy(dtype=float)
        places = (centres - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        n_slices = found.shape[0]
        middle = float(np.median(places[:, 0])) if len(places) else (n_slices - 1) / 2
        return cls(
            order=order,
            found=found,
            true=true,
            middle=int(np.clip(round(middle), 0, n_slices - 1)),
            places=places if len(regions.table) else np.empty((0, 3)),
        )

    @property
    def spacing(self) -> tuple[float, float, float]:
        return self.order.spacing_mm

    def offset_mm(self, index: int) -> float:
        return (index - self.middle) * self.spacing[0]

    def cut(self) -> Box:
        """Voxels to the front and up that are shown: the discs and some more."""
        discs = self.found if self.true is None else self.found | self.true
        parts = []
        for axis in (1, 2):
            others = tuple(a for a in range(3) if a != axis)
            where = np.flatnonzero(discs.any(axis=others))
            margin = int(np.ceil(_MARGIN_MM / self.spacing[axis]))
            size = discs.shape[axis]
            low, high = (where[0], where[-1] + 1) if len(where) else (0, size)
            parts.append(
                slice(max(0, int(low) - margin), min(size, int(high) + margin))
            )
        return parts[0], parts[1]

    def size_mm(self, cut: Box) -> tuple[float, float]:
        """Height and width of what is shown."""
        front, up = cut
        return (
            (up.stop - up.start) * self.spacing[2],
            (front.stop - front.start) * self.spacing[1],
        )

    def extent(self, cut: Box) -> tuple[float, float, float, float]:
        """Edges in mm; to the front and up from the first voxel of the grid."""
        front, up = cut
        step, rise = self.spacing[1], self.spacing[2]
        return (
            (front.start - 0.5) * step, (front.stop - 0.5) * step,
            (up.start - 0.5) * rise, (up.stop - 0.5) * rise,
        )  # fmt: skip

    def across(self) -> list[int]:
        """Slices that show the discs from one side to the other."""
        discs = self.found if self.true is None else self.found | self.true
        where = np.flatnonzero(discs.any(axis=(1, 2)))
        low, high = (where[0], where[-1]) if len(where) else (0, discs.shape[0] - 1)
        sides = _SLICES // 2
        step = max(1, int(max(self.middle - low, high - self.middle)) // sides)
        wanted = (self.middle + k * step for k in range(-sides, sides + 1))
        return [index for index in wanted if 0 <= index < discs.shape[0]]

    def table(self, regions: DiscRegions) -> pd.DataFrame:
        rows = regions.table[["label", "centre_x", "centre_y", "centre_z"]].copy()
        rows["offset_mm"] = (self.places[:, 0] - self.middle) * self.spacing[0]
        return rows


def _draw_slice(
    axes: Any,
    view: _View,
    values: NDArray[Any],
    index: int,
    cut: Box,
    *,
    letters: bool = True,
) -> None:
    part = values[(index, *cut)]
    low, high = np.percentile(values[(slice(None), *cut)], (1, 99.5))
    axes.imshow(
        part.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower",
        extent=view.extent(cut), interpolation="nearest",
    )  # fmt: skip
    _outline(axes, view, view.found[index], cut, _FOUND, _THICK)
    if view.true is not None:  # within the other where the two agree
        _outline(axes, view, view.true[index], cut, _REFERENCE, _THIN)
    _frame(axes, view, cut, letters=letters)


def _draw_doubt(
    figure: Any, axes: Any, view: _View, doubt: NDArray[Any], cut: Box
) -> None:
    shown = axes.imshow(
        doubt[(view.middle, *cut)].T, cmap="Purples", vmin=0, vmax=1, origin="lower",
        extent=view.extent(cut), interpolation="nearest",
    )  # fmt: skip
    _outline(axes, view, view.found[view.middle], cut, "#000000", _THIN)
    _frame(axes, view, cut, letters=True, ink="#000000")
    bar = figure.colorbar(shown, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("Uncertainty (0 sure, 1 does not know)")
    bar.set_ticks([0, 0.5, 1])
    bar.outline.set_visible(False)


def _outline(
    axes: Any,
    view: _View,
    mask: NDArray[np.bool_],
    cut: Box,
    colour: str,
    width: float,
) -> None:
    """Outline along the edges of voxels, so that it shows the mask as it is."""
    part = np.pad(mask[cut], 1)
    left, _, bottom, _ = view.extent(cut)
    step, rise = view.spacing[1], view.spacing[2]
    lines = []
    for front, up in np.argwhere(part[1:, :] != part[:-1, :]):
        x = left + front * step
        y = bottom + (up - 1) * rise
        lines.append([(x, y), (x, y + rise)])
    for front, up in np.argwhere(part[:, 1:] != part[:, :-1]):
        x = left + (front - 1) * step
        y = bottom + up * rise
        lines.append([(x, y), (x + step, y)])
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, colors=colour, linewidths=width))


def _frame(
    axes: Any, view: _View, cut: Box, *, letters: bool, ink: str = "#FFFFFF"
) -> None:
    left, right, bottom, top = view.extent(cut)
    axes.set(xlim=(right, left), ylim=(bottom, top), aspect="equal")  # front: left
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    if not letters:
        return
    for x, y, text, place in (
        (0.02, 0.5, "A", {"ha": "left", "va": "center"}),
        (0.98, 0.5, "P", {"ha": "right", "va": "center"}),
        (0.5, 0.985, "S", {"ha": "center", "va": "top"}),
        (0.5, 0.015, "I", {"ha": "center", "va": "bottom"}),
    ):
        _say(axes, x, y, text, ink, 9, transform=axes.transAxes, **place)
    fitting = [bar for bar in _BARS_MM if bar <= 0.35 * (right - left)]
    length = fitting[0] if fitting else _BARS_MM[-1]
    x, y = right - 0.06 * (right - left), bottom + 0.05 * (top - bottom)
    axes.plot([x, x - length], [y, y], color=ink, lw=2, solid_capstyle="butt")
    _say(
        axes, x - length / 2, y + 0.012 * (top - bottom), f"{length:.0f} mm", ink, 7,
        ha="center", va="bottom",
    )  # fmt: skip


def _number(axes: Any, view: _View, regions: DiscRegions, cut: Box) -> None:
    for label, (_, front, up) in zip(regions.table["label"], view.places, strict=True):
        x, y = front * view.spacing[1], up * view.spacing[2]
        _say(axes, x, y, str(label), "#FFFFFF", 9, ha="center", va="center")


def _say(
    axes: Any, x: float, y: float, text: str, ink: str, size: float, **place: Any
) -> None:
    from matplotlib.patheffects import withStroke

    edge = "#000000" if ink == "#FFFFFF" else "#FFFFFF"
    axes.text(
        x, y, text, color=ink, fontsize=size, fontweight="bold",
        path_effects=[withStroke(linewidth=1.8, foreground=edge)], **place,
    )  # fmt: skip


def _legend(axes: Any, with_reference: bool) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_FOUND, lw=_THICK, label="found")]
    if with_reference:
        lines.append(Line2D([], [], color=_REFERENCE, lw=_THIN, label="reference"))
    axes.legend(
        handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2,
        borderaxespad=0.2,
    )  # fmt: skip


def _caption(
    view: _View,
    regions: DiscRegions,
    reference: DiscRegions | None,
    with_uncertainty: bool,
) -> str:
    told = (
        "Seen from the patient's left: anterior (A) at the left, superior (S) at the "
        "top. The slice runs through the middle of the discs. "
    )
    told += (
        "Numbers stand at the discs' centres and count from the lowest disc that was "
        "found; a centre may lie in another slice."
        if len(regions.table)
        else "No disc was found."
    )
    if reference is not None:
        told += " Thick: found; thin: the reference."
    if with_uncertainty:
        told += (
            " Uncertainty is the entropy of the class probabilities, as a part of the "
            "largest possible."
        )
    if view.order.oblique_deg >= _OBLIQUE_DEG:
        told += (
            f" The scan is oblique: its axes lie up to {view.order.oblique_deg:.0f} "
            "degrees off those of the patient, and the picture follows the scan."
        )
    return told


def _signed(offset_mm: float) -> str:
    return f"{offset_mm:+.0f} mm" if offset_mm else "0 mm"


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    first, second, third = shape
    return first, second, third


def _values(image: Any, regions: DiscRegions) -> NDArray[np.float32]:
    """Intensities of an image that lies on the grid of the discs."""
    import nibabel

    discs = nibabel.Nifti1Image(regions.labels, regions.affine)
    check_one_grid({"the discs": discs, "the image": image})
    return np.asarray(image.dataobj, dtype=np.float32)


def _on_grid(name: str, values: ArrayLike, regions: DiscRegions) -> NDArray[Any]:
    volume = np.asarray(values)
    if volume.shape != regions.labels.shape:
        raise UsageError(
            f"{name} must have the shape of the discs {regions.labels.shape}, got "
            f"{volume.shape}"
        )
    return volume
