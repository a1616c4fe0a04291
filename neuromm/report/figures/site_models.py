"""Models compared: trained with random twins, and their ranks in each region."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import UsageError
from neuromm.report.figures.canvas import colour_map, style
from neuromm.report.figures.site_drawing import (
    PALE,
    Drawing,
    attrs_of,
    counted,
    finish,
    label_outer,
    model_name,
    site_colours,
    titled_canvas,
)

__all__ = ["rank_heat_map", "twin_counts", "twin_scatter"]

_MAX_PANELS = 8
_MAX_REGIONS = 40


def twin_counts(table: pd.DataFrame) -> pd.DataFrame:
    """On how many targets each trained network beats its random twin.

    Parameters
    ----------
    table : DataFrame
        As for `twin_scatter`.

    Returns
    -------
    counts : DataFrame
        ``model``, ``n_targets`` (with both scores), ``n_trained`` and ``n_random``
        (which score is higher; a tie is in neither), ``share_trained`` and
        ``median_difference`` (trained less random).
    """
    known = _checked_twins(table)
    difference = known["trained"] - known["random"]
    grouped = known.assign(
        difference=difference, up=difference > 0, down=difference < 0
    ).groupby("model", sort=False)
    counts = grouped.agg(
        n_targets=("difference", "size"),
        n_trained=("up", "sum"),
        n_random=("down", "sum"),
        share_trained=("up", "mean"),
        median_difference=("difference", "median"),
    )
    return counts.reset_index()


def twin_scatter(
    table: pd.DataFrame,
    *,
    targets: str = "contacts",
    against: str = "random twin",
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Score of each trained network against that of its randomly initialised twin.

    Parameters
    ----------
    table : DataFrame
        A row a model and target: ``model``, ``trained``, ``random`` (scores), and
        ``is_better`` (bool) where the difference was tested: such marks are filled.
    targets : str
        What is counted.
    against : str
        What the scores of ``random`` are of.
    attrs : mapping, optional
        `SiteMap.attrs`; a figure of stand-in features is marked.

    Returns
    -------
    drawing : Drawing
        ``table`` is the given one, without targets that lack a score; counts are those
        of `twin_counts`.
    """
    attrs = attrs_of(table) if attrs is None else attrs
    known = _checked_twins(table)
    counts = twin_counts(table).set_index("model")
    models = list(counts.index[:_MAX_PANELS])
    tested = "is_better" in known
    n_columns = min(4, len(models))
    n_rows = -(-len(models) // n_columns)
    values = known[["trained", "random"]].to_numpy(dtype=float)
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * max(high - low, 1e-6)
    low, high = low - margin, high + margin
    width, height = max(2.5 * n_columns + 0.3, 3.6), 2.75 * n_rows + 0.4
    with style():
        title = f"Trained networks and their {against}s"
        figure = titled_canvas(width, height, title, attrs)
        grid = figure.subplots(
            n_rows, n_columns, sharex=True, sharey=True, squeeze=False
        )
        for axes in grid.ravel()[len(models) :]:
            axes.set_axis_off()
        colours = site_colours(models)
        for axes, model in zip(grid.ravel(), models, strict=False):
            rows = known[known["model"] == model]
            _draw_twins(axes, rows, colours[model], tested)
            axes.set_title(f"{model}\n{_sides(counts.loc[model])}", loc="left")
            axes.locator_params(nbins=4)
        grid[0, 0].set_xlim(low, high)
        grid[0, 0].set_ylim(low, high)
        label_outer(grid, len(models), f"{against} (r)", "trained (r)")
        told = "; ".join(
            f"{model}: trained is higher on {row['n_trained']:.0f} of "
            f"{row['n_targets']:.0f}"
            for model, row in counts.loc[models].iterrows()
        )
        mark = " Filled: significantly better." if tested else ""
        more = len(counts) - len(models)
        left = f" {counted(more, 'networks')} more in the table." if more else ""
        return finish(
            figure,
            known,
            alt=f"Scatter of scores; {told}.",
            caption=f"A mark a {targets.removesuffix('s')}; the line is equality, the "
            f"numbers count {targets} above and below it.{mark}{left}",
            attrs=attrs,
        )


def rank_heat_map(
    ranks: pd.DataFrame,
    *,
    targets: str = "contacts",
    max_regions: int = _MAX_REGIONS,
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Rank of each model in each region; 1, the darkest, is best.

    Parameters
    ----------
    ranks : DataFrame
        Of `neuromm.encoding.group_sites.model_ranks`.
    targets : str
        What is counted.
    max_regions : int
        How many are drawn, those with most targets; the table holds all.
    attrs : mapping, optional
        `SiteMap.attrs`; a figure of stand-in features is marked.

    Returns
    -------
    drawing : Drawing
        ``table`` is ``ranks``.
    """
    if ranks.empty or not ranks["rank"].notna().any():
        raise UsageError("there is no rank to draw")
    attrs = attrs_of(ranks) if attrs is None else attrs
    wide = ranks.pivot(index="region", columns="model", values="rank")
    counts = ranks.drop_duplicates("region").set_index("region")
    mean = wide.mean().sort_values()
    sizes = counts["n_targets"].sort_values(ascending=False, kind="stable")
    regions, models = sorted(sizes.index[:max_regions]), list(mean.index)
    values = wide.loc[regions, models].to_numpy(dtype=float)
    n_models = len(models)
    named = [model_name(name) for name in models]
    longest = max(len(name) for name in named)
    with style():
        title = "Rank of models by region (1 = best)"
        height = 0.27 * len(regions) + 0.6 + 0.055 * longest
        figure = titled_canvas(3.4 + 0.62 * n_models, height, title, attrs)
        axes = figure.subplots()
        axes.imshow(
            values,
            cmap=_rank_colours(),
            vmin=1,
            vmax=max(n_models, 2),
            aspect="auto",
            interpolation="nearest",
        )
        _write_ranks(axes, values)
        labels = [_region_label(counts.loc[name], name, targets) for name in regions]
        axes.set_yticks(range(len(regions)), labels)
        axes.set_xticks(
            range(n_models), named, rotation=40, ha="left", rotation_mode="anchor"
        )
        axes.xaxis.tick_top()
        _separate_cells(axes, len(regions), n_models)
        more = len(counts) - len(regions)
        left = (
            f" {counted(more, 'regions')} with fewer {targets} not shown."
            if more
            else ""
        )
        return finish(
            figure,
            ranks,
            alt=f"Ranks of {n_models} models in {len(regions)} regions; best on "
            f"average: {models[0]} ({mean.iloc[0]:.1f}).",
            caption="Ranks of mean scores, models in the order of their mean rank. "
            f"Grey: no score. Ranks of close scores are not significant differences."
            f"{left}",
            attrs=attrs,
        )


def _draw_twins(axes: Any, rows: pd.DataFrame, colour: str, tested: bool) -> None:
    axes.axline((0, 0), slope=1, color="#555555", linewidth=0.9, zorder=1)
    axes.set_aspect("equal")
    filled = (
        rows["is_better"].to_numpy(dtype=bool)
        if tested
        else np.ones(len(rows), dtype=bool)
    )
    size = 16 if len(rows) < 400 else 6
    for which, face in ((~filled, "white"), (filled, colour)):
        part = rows[which]
        axes.scatter(
            part["random"],
            part["trained"],
            s=size,
            c=face,
            edgecolors=colour,
            linewidths=0.6,
            alpha=0.8,
            zorder=2,
            rasterized=len(rows) > 5000,
        )


def _sides(counts: pd.Series) -> str:
    """How many targets lie on either side of the line."""
    total = max(float(counts["n_targets"]), 1.0)
    above, below = (
        f"{counts[name]:,.0f} ({100 * counts[name] / total:.0f} %) {side}"
        for name, side in (("n_trained", "above"), ("n_random", "below"))
    )
    return f"{above}, {below}"


def _separate_cells(axes: Any, n_rows: int, n_columns: int) -> None:
    axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_ranks(axes: Any, values: Any) -> None:
    image = axes.images[0]
    for row, line in enumerate(values):
        for column, rank in enumerate(line):
            if not np.isfinite(rank):
                continue
            red, green, blue, _ = image.cmap(image.norm(rank))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            axes.text(
                column,
                row,
                f"{rank:g}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )


def _rank_colours() -> Any:
    return colour_map().reversed().with_extremes(bad=PALE)  # rank 1 is dark


def _region_label(row: pd.Series, name: str, targets: str) -> str:
    counts = counted(int(row["n_targets"]), targets)
    if np.isfinite(row["n_subjects"]):
        counts += f", {counted(int(row['n_subjects']), 'subjects')}"
    return f"{name}  ({counts})"


def _checked_twins(table: pd.DataFrame) -> pd.DataFrame:
    missing = _missing(table, ("model", "trained", "random"))
    if missing:
        raise UsageError(
            f"the table lacks {', '.join(missing)}: give a row a model and target, "
            "with the score of the trained network and of its random twin"
        )
    known = table.dropna(subset=["trained", "random"]).reset_index(drop=True)
    if known.empty:
        raise UsageError("no target has both the score of a network and of its twin")
    return known


def _missing(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name not in table]
