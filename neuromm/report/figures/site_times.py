"""Score over time around the event, with bands, and when the site test passes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neuromm.core import UsageError
from neuromm.report.figures.canvas import style
from neuromm.report.figures.site_drawing import (
    SITE,
    Drawing,
    attrs_of,
    counted,
    finish,
    label_outer,
    model_dashes,
    model_name,
    site_colours,
    titled_canvas,
)

__all__ = ["site_time_courses"]

_MAX_PANELS = 8
_TITLE = 29  # characters


def site_time_courses(
    courses: pd.DataFrame,
    *,
    by: str | None = None,
    targets: str = "contacts",
    max_panels: int = _MAX_PANELS,
    event: str = "event",
    attrs: Mapping[str, Any] | None = None,
) -> Drawing:
    """Draw the score of each model over time, a panel a region or all together.

    Parameters
    ----------
    courses : DataFrame
        Of `neuromm.encoding.group_courses.score_courses`: ``model``, ``time`` (s),
        ``score``, ``ci_low``, ``ci_high``, ``share_sites``, ``n_targets``,
        ``n_subjects``, ``resampled`` and the column ``by``.
    by : str, optional
        Column of panels, such as ``"region"``: those with the highest scores are drawn.
    targets : str
        What is counted.
    max_panels : int
    event : str
        What happens at 0 s, such as "word onset".
    attrs : mapping, optional
        `SiteMap.attrs`; a figure of stand-in features is marked.

    Returns
    -------
    drawing : Drawing
        ``table`` is ``courses``, of the panels that are drawn.
    """
    needed = {"model", "time", "score", "ci_low", "ci_high", "share_sites"}
    missing = sorted((needed | ({by} if by else set())) - set(courses))
    if missing or courses.empty:
        raise UsageError(
            f"courses lack {', '.join(missing) or 'rows'}; score_courses makes them"
        )
    attrs = attrs_of(courses) if attrs is None else attrs
    groups: dict[str, pd.DataFrame] = {"": courses}
    if by is not None:
        groups = {str(name): rows for name, rows in courses.groupby(by)}
    peaks = {name: rows["score"].max() for name, rows in groups.items()}
    order = sorted(groups, key=lambda name: (-peaks[name], name))
    panels = order[:max_panels]
    shown = pd.concat([groups[name] for name in panels])
    models = list(dict.fromkeys(courses["model"]))
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with style():
        size = (5.6, 3.0) if len(panels) == 1 else (9.6, 2.0 * n_rows + 0.6)
        figure = titled_canvas(*size, f"Score over time from {event}", attrs)
        grid = figure.subplots(
            n_rows, n_columns, sharex=True, sharey=True, squeeze=False
        )
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        low, high = _span(shown)
        for axes, name in zip(grid.ravel(), panels, strict=False):
            _draw(axes, groups[name], models, (low, high))
            axes.set_title(_panel_title(name, groups[name], targets), loc="left")
        grid[0, 0].set_ylim(low, high)
        label_outer(grid, len(panels), f"time from {event} (s)", "Pearson's r")
        _legend(figure, grid[0, 0], bool(shown["share_sites"].notna().any()))
        best = shown.iloc[int(np.nanargmax(shown["score"].to_numpy()))]
        return finish(
            figure,
            shown,
            alt=f"Score over time of {', '.join(models)}, "
            f"{counted(len(panels), 'panels')}; highest r {best['score']:.2f} at "
            f"{best['time']:.3g} s ({best['model']}).",
            caption=_caption(courses, len(order), len(panels), targets),
            attrs=attrs,
        )


def _draw(
    axes: Any, rows: pd.DataFrame, models: Sequence[str], span: tuple[float, float]
) -> None:
    colours, dashes = site_colours(models), model_dashes(models)
    axes.axhline(0, color="#999999", linewidth=0.7)
    axes.axvline(0, color="#999999", linewidth=0.7)
    for number, model in enumerate(models):
        line = rows[rows["model"] == model].sort_values("time")
        time = line["time"].to_numpy()
        axes.fill_between(
            time,
            line["ci_low"].to_numpy(dtype=float),
            line["ci_high"].to_numpy(dtype=float),
            color=colours[model],
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(
            time,
            line["score"],
            color=colours[model],
            linestyle=dashes[model],
            linewidth=1.5,
            label=model_name(model),
            zorder=3 + number,
        )
    _site_bar(axes, rows, span)


def _site_bar(axes: Any, rows: pd.DataFrame, span: tuple[float, float]) -> None:
    """Bar under the curves: the darker, the more targets are sites in a bin."""
    bins = rows.drop_duplicates("time").sort_values("time")
    shares = bins["share_sites"].to_numpy(dtype=float)
    time = bins["time"].to_numpy(dtype=float)
    if len(time) < 2 or not np.isfinite(shares).any():
        return
    step = float(np.median(np.diff(time)))
    height = 0.045 * (span[1] - span[0])
    for at, share in zip(time, shares, strict=True):
        if share > 0:
            axes.broken_barh(
                [(at - step / 2, step)],
                (span[0] + 0.3 * height, height),
                facecolors=SITE,
                # Few sites remain visible, and all sites are black.
                alpha=0.25 + 0.75 * share,
                linewidth=0,
            )


def _legend(figure: Any, axes: Any, tested: bool) -> None:
    from matplotlib.patches import Patch

    handles, _ = axes.get_legend_handles_labels()
    if tested:
        handles = [*handles, Patch(facecolor=SITE, label="site test passed")]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 6)
    )


def _span(shown: pd.DataFrame) -> tuple[float, float]:
    values = shown[["score", "ci_low", "ci_high"]].to_numpy(dtype=float)
    low, high = min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 0.02)
    return low - 0.11 * (high - low), high + 0.04 * (high - low)


def _panel_title(name: str, rows: pd.DataFrame, targets: str) -> str:
    n_targets, n_subjects = int(rows["n_targets"].max()), int(rows["n_subjects"].max())
    counts = f"{counted(n_targets, targets)}, {counted(n_subjects, 'subjects')}"
    if not name:
        return counts
    short = name if len(name) <= _TITLE else f"{name[: _TITLE - 1]}…"
    return f"{short}\n{counts}"


def _caption(courses: pd.DataFrame, n_panels: int, n_shown: int, targets: str) -> str:
    units = {"subjects": "subjects", "targets": f"{targets} of the one subject"}
    resampled = [units[u] for u in dict.fromkeys(courses["resampled"]) if u in units]
    parts = ["Mean r of held-out predictions over subjects."]
    if resampled:
        parts.append(f"Bands: intervals over resampled {' or '.join(resampled)}.")
    if courses["share_sites"].notna().any():
        parts.append(
            "Bar: bins in which the site test is passed, the darker, the more "
            f"{targets}."
        )
    if n_panels > n_shown:
        parts.append(f"The {n_shown} highest of {n_panels} are shown.")
    return " ".join(parts)
