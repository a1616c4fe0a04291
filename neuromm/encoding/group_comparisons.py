"""Which of two models wins at each target, and how often in each region.

A comparison of two models is a pair of columns: ``p_<first>_over_<second>``, one-sided,
beside the scores of both. Where only one of them could be scored it wins by default;
such wins are counted apart.

References
----------
Subramaniam et al. (2024) Revealing vision-language integration in the brain with
multimodal networks. ICML (default winners).
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neuromm.core import SiteMap, UsageError
from neuromm.encoding.group_tables import (
    Tables,
    joined_tables,
    models_of,
    named_regions,
)
from neuromm.encoding.site_decision import adjusted

__all__ = ["best_models", "comparison_table", "comparison_winners", "winner_counts"]

_COMPARISON = re.compile(r"p_(?P<first>.+)_over_(?P<second>.+)")
_COUNTS = {
    "first": "n_first",
    "second": "n_second",
    "default first": "n_default_first",
    "default second": "n_default_second",
}


def comparison_table(
    sites: SiteMap | pd.DataFrame,
    *,
    multimodal: str = "joint",
    over_time: str = "mean",
) -> pd.DataFrame:
    """Table of sites with the p of each single comparison, named by both models.

    Parameters
    ----------
    sites : SiteMap or DataFrame
        A map, or a table with ``p_<competitor>`` as ``encode`` writes it.
    multimodal, over_time : str
        Of a DataFrame; a SiteMap has them in its attributes.

    Returns
    -------
    table : DataFrame
        With ``p_<multimodal>_over_<competitor>`` for each competitor and chance. Where
        the mean over bins was tested, which is symmetric, also
        ``p_<competitor>_over_<multimodal>``.
    """
    p: dict[str, NDArray[np.float64]]
    if isinstance(sites, SiteMap):
        table = sites.table
        multimodal = str(sites.attrs["multimodal"])
        over_time = str(sites.attrs["over_time"])
        tested = sites.evidence["p_comparison"]
        compared = map(str, tested["comparison"].to_numpy())
        p = {name: tested.sel(comparison=name).to_numpy() for name in compared}
    else:
        own = [c for c in map(str, sites) if c.startswith("p_") and "_over_" not in c]
        table = sites.drop(columns=own)
        p = {name[2:]: sites[name].to_numpy(dtype=float) for name in own}
    for name, one_sided in p.items():
        table[f"p_{multimodal}_over_{name}"] = one_sided
        if over_time == "mean" and name != "chance":
            table[f"p_{name}_over_{multimodal}"] = 1 - one_sided
    return table


def best_models(table: pd.DataFrame, models: Iterable[str] | None = None) -> pd.Series:
    """Name of the model with the highest score at each target.

    Parameters
    ----------
    table : DataFrame
        `SiteMap.table`.
    models : iterable of str, optional
        Among which; all that have a score, with ``linear`` for the two linear controls.

    Returns
    -------
    best : Series of str
        "" where nothing is scored. The highest score need not be significantly higher.
    """
    names = models_of(table) if models is None else list(models)
    missing = [name for name in names if f"score_{name}" not in table]
    if missing or not names:
        raise UsageError(
            f"the table has no column score_{', score_'.join(missing) or '<model>'} "
            f"(columns: {', '.join(map(str, table.columns))})"
        )
    scores = table[[f"score_{name}" for name in names]].to_numpy(dtype=float)
    first = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    best = np.array(names, dtype=object)[first]
    best[np.isnan(scores).all(axis=1)] = ""
    return pd.Series(best, index=table.index, name="winner")


def comparison_winners(tables: Tables, *, level: float = 0.05) -> pd.DataFrame:
    """Winner of each comparison at each target.

    Parameters
    ----------
    tables : DataFrame with ``subject``, or mapping of subject to DataFrame
        Tables with columns ``p_<first>_over_<second>`` (`comparison_table`).
    level : float
        Of the false discovery rate (Benjamini-Hochberg), held over all targets of a
        comparison in one direction.

    Returns
    -------
    winners : DataFrame
        A row a comparison and target: ``subject``, ``target``, the columns that are
        neither scores nor tests (such as ``region``), ``first``, ``second``,
        ``difference`` (score of the first less that of the second), ``p`` and ``q``
        (of the first over the second) and ``winner``: "first", "second" (where the
        reverse was tested), "default first" or "default second" (the other one has no
        score), or "" (undecided, or neither is scored).
    """
    joined = joined_tables(tables, ())
    pairs = _pairs(joined)
    if not pairs:
        raise UsageError(
            "the tables have no column p_<first>_over_<second>; comparison_table makes "
            "them from a SiteMap"
        )
    kept = [
        str(name)
        for name in joined
        if not str(name).startswith(("score_", "p_", "q_"))
        and name not in ("gain", "ci_low", "ci_high", "competitor", "p", "q")
    ]
    parts = []
    for first, second in pairs:
        own, other = _score(joined, first), _score(joined, second)
        both = ~np.isnan(own) & ~np.isnan(other)
        p = joined[f"p_{first}_over_{second}"].to_numpy(dtype=float)
        q = adjusted(np.where(both, p, np.nan), "bh")
        winner = np.full(len(joined), "", dtype=object)
        reverse = joined.get(f"p_{second}_over_{first}")
        if reverse is not None:
            values = reverse.to_numpy(dtype=float)
            back = adjusted(np.where(both, values, np.nan), "bh")
            winner[np.nan_to_num(back, nan=1.0) <= level] = "second"
        winner[np.nan_to_num(q, nan=1.0) <= level] = "first"
        winner[~np.isnan(own) & np.isnan(other)] = "default first"
        winner[np.isnan(own) & ~np.isnan(other)] = "default second"
        told: dict[str, Any] = {
            "first": first,
            "second": second,
            "difference": own - other,
        }
        told |= {"p": np.where(both, p, np.nan), "q": q, "winner": winner}
        parts.append(joined[kept].assign(**told))
    return pd.concat(parts, ignore_index=True)


def winner_counts(
    tables: Tables, *, by: str | None = "region", level: float = 0.05
) -> pd.DataFrame:
    """How often each model of a comparison wins, in each region or in all.

    Parameters
    ----------
    tables, level
        As for `comparison_winners`.
    by : str or None
        Column of regions; targets without one are left out. None counts all targets.

    Returns
    -------
    counts : DataFrame
        ``by``, ``first``, ``second``, ``n_tested`` (both have a score), ``n_first``
        and ``n_second`` (significantly better; ``n_second`` is nan if the reverse was
        not tested), ``share`` (n_first / n_tested), ``n_default_first`` and
        ``n_default_second`` (the other model has no score).
    """
    joined = joined_tables(tables, () if by is None else (by,))
    winners = comparison_winners(joined, level=level)
    keys = ["first", "second"]
    if by is not None:
        winners = winners[named_regions(winners[by])]
        keys = [by, *keys]
    indicators = winners[keys].assign(n_tested=winners["difference"].notna())
    for word, name in _COUNTS.items():
        indicators[name] = winners["winner"] == word
    counts = indicators.groupby(keys, sort=False).sum().reset_index()
    counts["share"] = counts["n_first"] / counts["n_tested"].replace(0, np.nan)
    reverse = zip(counts["second"], counts["first"], strict=True)
    known = np.array([f"p_{one}_over_{other}" in joined for one, other in reverse])
    counts["n_second"] = counts["n_second"].where(known)
    order = [*keys, "n_tested", "n_first", "n_second", "share"]
    return counts[[*order, "n_default_first", "n_default_second"]]


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Compared models; a pair whose reverse comes first is the same comparison."""
    pairs: list[tuple[str, str]] = []
    for name in map(str, table.columns):
        match = _COMPARISON.fullmatch(name)
        if match and (match["second"], match["first"]) not in pairs:
            pairs.append((match["first"], match["second"]))
    return pairs


def _score(table: pd.DataFrame, model: str) -> NDArray[np.float64]:
    if model == "chance":
        return np.zeros(len(table))
    if f"score_{model}" not in table:
        raise UsageError(
            f"the model {model!r} is compared, but there is no score_{model}"
        )
    return table[f"score_{model}"].to_numpy(dtype=float)
