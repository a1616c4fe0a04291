"""Where sites of integration lie: contacts and vertices, on glass brain and surface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import UsageError
from neuromm.report.figures.canvas import colour_bar, colour_map, style
from neuromm.report.figures.site_drawing import (
    PALE,
    SITE,
    Drawing,
    attrs_of,
    counted,
    finish,
    model_marks,
    model_name,
    site_colours,
    titled_canvas,
)
from neuromm.report.figures.site_surface import (
    VIEWS,
    cortex,
    draw_surface,
    nearest_vertices,
    shown_in,
)
from neuromm.report.figures.site_winners import site_winners, vertices_of
from neuromm.report.figures.surfaces import N_VERTICES

__all__ = ["contact_sites", "vertex_sites"]

Colour = Literal["winner", "gain"]

_PLACE = (0.0, 0.13, 1.0, 0.76)  # of the brains
_PLACE_BESIDE_BAR = (0.0, 0.13, 0.9, 0.76)
_BAR = (0.915, 0.25, 0.012, 0.5)


def contact_sites(
    table: pd.DataFrame,
    *,
    colour: Colour = "winner",
    on: Literal["glass", "surface"] = "glass",
    multimodal: str = "joint",
    least_score: float | None = None,
    max_distance_mm: float = 10.0,
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Contacts coloured by the model that wins, or by the gain of the joint model.

    Parameters
    ----------
    table : DataFrame
        `SiteMap.table` of one or several subjects, with ``x``, ``y``, ``z`` in mm of
        MNI space.
    colour : {"winner", "gain"}
    on : {"glass", "surface"}
        All contacts in the outlines of the brain, or each at the nearest place of the
        inflated fsaverage5 surface.
    multimodal, least_score
        As for `site_winners`.
    max_distance_mm : float
        Contacts farther than this from cortex are left off the surface; the caption
        counts them.
    attrs : mapping, optional
        `SiteMap.attrs`; a figure of stand-in features is marked. Those of the table if
        not given.

    Returns
    -------
    drawing : Drawing
        ``table`` is that of `site_winners` for the contacts with a place; on the
        surface with ``hemi``, ``vertex`` and ``distance_mm``.

    Raises
    ------
    neuromm.core.UsageError
        If a column is missing or no contact has a place.
    """
    _check_choice("colour", colour, ("winner", "gain"))
    _check_choice("on", on, ("glass", "surface"))
    attrs = attrs_of(table) if attrs is None else attrs
    told = site_winners(table, multimodal=multimodal, least_score=least_score)
    floor = told.attrs["least_score"]
    if not {"x", "y", "z"} <= set(told):
        raise UsageError("contacts on a brain need x, y and z: mm in MNI space")
    placed = told.dropna(subset=["x", "y", "z", "gain"]).reset_index(drop=True)
    if placed.empty:
        raise UsageError("no scored contact has a place (x, y, z in mm of MNI space)")
    told_off = ""
    if on == "surface":
        placed, told_off = _on_cortex(placed, max_distance_mm)
    layers = (
        _winner_layers(placed, multimodal, floor)
        if colour == "winner"
        else _gain_layers(placed)
    )
    place = _PLACE if colour == "winner" else _PLACE_BESIDE_BAR
    with style():
        figure = titled_canvas(
            9.6,
            2.7 if on == "glass" else 2.2,
            _title(colour, multimodal),
            attrs,
            constrained=False,
        )
        draw = _draw_glass if on == "glass" else _draw_inflated
        draw(figure, place, placed, layers)
        if colour == "gain":
            _gain_bar(figure, placed, multimodal)
        _legend(figure, layers)
        return finish(
            figure,
            placed,
            alt=_alt(placed, "contacts", on),
            caption=_caption(placed, "contacts", colour, multimodal, floor) + told_off,
            attrs=attrs,
        )


def vertex_sites(
    table: pd.DataFrame,
    *,
    colour: Colour = "winner",
    multimodal: str = "joint",
    least_score: float | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Vertices of fsaverage5 coloured by the model that wins, or by the gain of sites.

    Parameters
    ----------
    table : DataFrame
        `SiteMap.table` with ``hemi`` ("L", "R") and ``vertex`` (counted from 0), or
        with targets named such as ``L-123``, as surface data have them.
    colour : {"winner", "gain"}
        The gain is drawn at sites alone.
    multimodal, least_score, attrs
        As for `contact_sites`.

    Returns
    -------
    drawing : Drawing
        ``table`` is that of `site_winners`, with ``hemi`` and ``vertex``.
    """
    _check_choice("colour", colour, ("winner", "gain"))
    attrs = attrs_of(table) if attrs is None else attrs
    told = site_winners(table, multimodal=multimodal, least_score=least_score)
    floor = told.attrs["least_score"]
    told = told.assign(**vertices_of(table))
    if told.duplicated(["hemi", "vertex"]).any():
        raise UsageError(
            "a vertex occurs twice: draw one subject, or average the scores of subjects"
        )
    with style():
        title = _title(colour, multimodal)
        figure = titled_canvas(9.6, 2.2, title, attrs, constrained=False)
        if colour == "winner":
            names = [name for name in _order(told, multimodal) if name]
            codes = {name: number + 1.0 for number, name in enumerate(names)}
            values = _on_mesh(told, told["winner"].map(codes).to_numpy(dtype=float))
            draw_surface(
                figure,
                _PLACE,
                values,
                cmap=_listed([_colours(names, multimodal)[name] for name in names]),
                limits=(0.5, max(len(names), 1) + 0.5),
                categories=True,
            )
            _patches(figure, told, names, multimodal)
        else:
            shown = np.where(told["is_site"], told["gain"], np.nan)
            limits = (0.0, _gain_top(told))
            draw_surface(
                figure,
                _PLACE_BESIDE_BAR,
                {s: np.clip(v, *limits) for s, v in _on_mesh(told, shown).items()},
                cmap=colour_map(),
                limits=limits,
            )
            _gain_bar(figure, told, multimodal)
        return finish(
            figure,
            told,
            alt=_alt(told, "vertices", "surface"),
            caption=_caption(told, "vertices", colour, multimodal, floor),
            attrs=attrs,
        )


@dataclass(frozen=True)
class _Layer:
    """Marks of one look; later layers lie over earlier ones."""

    rows: NDArray[np.bool_]
    label: str
    face: Any  # a colour, or one for each row
    mark: str = "o"
    size: float = 26.0
    edge: str = "white"
    width: float = 0.5


def _winner_layers(placed: pd.DataFrame, multimodal: str, floor: float) -> list[_Layer]:
    names = _order(placed, multimodal)
    colours = _colours(names, multimodal)
    marks = model_marks(names) | {multimodal: "D"}
    size = _size(len(placed))
    winner = placed["winner"].to_numpy()
    layers = []
    for name in names:
        rows = np.asarray(winner == name)
        if not name:
            label = f"r below {floor:.2g} ({rows.sum():,})"
            layers.append(_Layer(rows, label, PALE, ".", size / 2, "none", 0.0))
            continue
        label = f"{_label(name, multimodal)} ({rows.sum():,})"
        larger = 1.5 if name == multimodal else 1.0
        layers.append(_Layer(rows, label, colours[name], marks[name], larger * size))
    return layers


def _gain_layers(placed: pd.DataFrame) -> list[_Layer]:
    gain, found = placed["gain"].to_numpy(), placed["is_site"].to_numpy(dtype=bool)
    top = _gain_top(placed)
    shade = colour_map()(np.clip(gain, 0, top) / top)
    size = _size(len(placed))
    above = ~found & (gain > 0)
    none = ~found & (gain <= 0)
    layers = [
        _Layer(none, "no gain", "white", "o", size / 2, "#9A9A9A", 0.5),
        _Layer(above, "gain, not a site", shade[above], "o", size, "#9A9A9A", 0.4),
        _Layer(found, "site", shade[found], "D", 1.5 * size, "black", 0.9),
    ]
    return [
        replace(layer, label=f"{layer.label} ({layer.rows.sum():,})")
        for layer in layers
        if layer.rows.any()
    ]


def _on_cortex(
    placed: pd.DataFrame, max_distance_mm: float
) -> tuple[pd.DataFrame, str]:
    """Contacts near cortex with their nearest vertex, and how many are left out."""
    nearest = nearest_vertices(placed[["x", "y", "z"]].to_numpy(dtype=float))
    own = placed.drop(columns="hemi", errors="ignore")
    found = pd.concat([own, nearest], axis=1)
    far = found["distance_mm"] > max_distance_mm
    if not far.any():
        return found, ""
    left_out = counted(int(far.sum()), "contacts")
    return (
        found[~far].reset_index(drop=True),
        f" {left_out} farther than {max_distance_mm:g} mm from cortex not drawn.",
    )


def _draw_glass(
    figure: Any,
    place: tuple[float, float, float, float],
    placed: pd.DataFrame,
    layers: Sequence[_Layer],
) -> None:
    from nilearn import plotting

    display = plotting.plot_glass_brain(
        None, display_mode="lyrz", figure=figure, axes=place, colorbar=False
    )
    xyz = placed[["x", "y", "z"]].to_numpy(dtype=float)
    for number, layer in enumerate(layers):
        if layer.rows.any():
            display.add_markers(
                xyz[layer.rows],
                marker_color=layer.face,
                marker_size=layer.size,
                marker=layer.mark,
                edgecolors=layer.edge,
                linewidths=layer.width,
                zorder=1000 + number,
            )


def _draw_inflated(
    figure: Any,
    place: tuple[float, float, float, float],
    placed: pd.DataFrame,
    layers: Sequence[_Layer],
) -> None:
    views = draw_surface(figure, place)
    side, vertex = placed["hemi"].to_numpy(), placed["vertex"].to_numpy(dtype=int)
    for axes, (hemi, _, towards) in zip(views, VIEWS, strict=True):
        here = np.asarray(side == hemi)
        here[here] = shown_in(hemi, towards, vertex[here])
        for number, layer in enumerate(layers):
            rows = here & layer.rows
            if not rows.any():
                continue
            xyz = cortex(hemi).inflated[vertex[rows]]
            one = isinstance(layer.face, str)
            axes.scatter(
                *xyz.T,
                s=layer.size,
                c=layer.face if one else layer.face[rows[layer.rows]],
                marker=layer.mark,
                edgecolors=layer.edge,
                linewidths=layer.width,
                depthshade=False,
                zorder=10 + number,
            )


def _legend(figure: Any, layers: Sequence[_Layer]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=layer.mark,
            markersize=6,
            markerfacecolor=layer.face if isinstance(layer.face, str) else "#B0B0B0",
            markeredgecolor=layer.edge if layer.edge != "white" else "none",
            markeredgewidth=layer.width,
            label=layer.label,
        )
        for layer in reversed(layers)
        if layer.rows.any()
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), handletextpad=0.2
    )


def _patches(
    figure: Any, told: pd.DataFrame, names: Sequence[str], multimodal: str
) -> None:
    from matplotlib.patches import Patch

    colours = _colours(names, multimodal)
    counts = told["winner"].value_counts()
    handles = [
        Patch(
            facecolor=colours[name],
            label=f"{_label(name, multimodal)} ({counts.get(name, 0):,})",
        )
        for name in reversed(names)
    ]
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=len(handles))


def _gain_bar(figure: Any, told: pd.DataFrame, multimodal: str) -> None:
    label = f"gain of {multimodal} (r)"
    colour_bar(figure, (0.0, _gain_top(told)), label, place=_BAR)


def _title(colour: Colour, multimodal: str) -> str:
    if colour == "winner":
        return "Sites of integration, and the best simpler model elsewhere"
    return f"Gain of {multimodal} over the best simpler model"


def _caption(
    told: pd.DataFrame, targets: str, colour: Colour, multimodal: str, floor: float
) -> str:
    n_sites = int(told["is_site"].sum())
    subjects = (
        f" of {counted(told['subject'].nunique(), 'subjects')}"
        if "subject" in told
        else ""
    )
    counts = f"{counted(len(told), targets)}{subjects}, {n_sites:,} of them sites."
    if colour == "gain":
        return (
            f"{counts} Gain: r of {multimodal} less that of the best simpler model; "
            "sites are decided by the test, not by the size of the gain."
        )
    return (
        f"{counts} At sites {multimodal} beats every simpler model. Elsewhere the best "
        f"simpler model is shown, which {multimodal} was not found to beat; none where "
        f"r is below {floor:.2g}."
    )


def _alt(told: pd.DataFrame, targets: str, on: str) -> str:
    where = "glass brain" if on == "glass" else "inflated cortex"
    counts = told["winner"].value_counts()
    each = ", ".join(f"{name} {n}" for name, n in counts.items() if name)
    return (
        f"{counted(len(told), targets)} on the {where}, "
        f"{int(told['is_site'].sum())} of them sites; best models: {each or 'none'}."
    )


def _label(name: str, multimodal: str) -> str:
    return f"{name}: a site" if name == multimodal else model_name(name)


def _order(told: pd.DataFrame, multimodal: str) -> list[str]:
    """Winners in the order they are drawn: none first, sites over all."""
    present = set(told["winner"])
    known = [name for name in ("", "language", "linear", "vision") if name in present]
    others = sorted(present - {*known, multimodal})
    return [*known, *others, *([multimodal] if multimodal in present else [])]


def _colours(names: Sequence[str], multimodal: str) -> dict[str, str]:
    return site_colours([name for name in names if name]) | {multimodal: SITE}


def _size(n_targets: int) -> float:
    return 30.0 if n_targets < 150 else 20.0 if n_targets < 500 else 11.0


def _gain_top(told: pd.DataFrame) -> float:
    """End of the colour bar: 1, 2 or 5 times a power of ten."""
    gain = told.loc[told["is_site"], "gain"].to_numpy(dtype=float)
    if not len(gain):
        gain = told["gain"].to_numpy(dtype=float)
    gain = gain[gain > 0]
    highest = max(float(np.percentile(gain, 99.9)) if len(gain) else 0.0, 1e-3)
    power = 10.0 ** np.floor(np.log10(highest))
    steps = [step for step in (1, 2, 5, 10) if step * power >= highest * (1 - 1e-9)]
    return float(steps[0] * power)


def _on_mesh(
    told: pd.DataFrame, values: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    halves = {}
    for side in ("L", "R"):
        here = (told["hemi"] == side).to_numpy()
        halves[side] = np.full(N_VERTICES, np.nan)
        halves[side][told["vertex"].to_numpy()[here]] = values[here]
    return halves


def _listed(colours: Sequence[str]) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap(colours or [PALE])


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
