"""Tables of several subjects as one, with a row for each of their targets."""

from collections.abc import Iterable, Mapping

import pandas as pd

from neuromm.core import UsageError

__all__ = ["Tables", "joined_tables", "models_of", "named_regions"]

Tables = pd.DataFrame | Mapping[str, pd.DataFrame]

_NO_REGION = ("", "n/a", "nan", "none", "unknown", "background")


def joined_tables(
    tables: Tables, needed: Iterable[str], *, key: Iterable[str] = ("target",)
) -> pd.DataFrame:
    """One table with the column ``subject``.

    Parameters
    ----------
    tables : DataFrame, or mapping of str to DataFrame
        A table with the column ``subject``, or one table a subject, by its label.
    needed : iterable of str
        Columns without which nothing can be computed.
    key : iterable of str
        Columns that tell the rows of one subject apart.

    Raises
    ------
    UsageError
        If there is no table, a column is missing, or a row occurs twice.
    """
    if isinstance(tables, pd.DataFrame):
        joined = tables.reset_index(drop=True)
        if "subject" not in joined:
            raise UsageError(
                "a table of several subjects needs the column subject; or give one "
                "table a subject: {'01': table, '02': table}"
            )
    else:
        if not tables:
            raise UsageError("expected the table of at least one subject, got none")
        joined = pd.concat(
            [one.assign(subject=str(name)) for name, one in tables.items()],
            ignore_index=True,
        )
    columns = list(dict.fromkeys([*key, *needed]))
    missing = [name for name in columns if name not in joined]
    if missing:
        raise UsageError(
            f"the tables lack the column {', '.join(missing)} (they have: "
            f"{', '.join(map(str, joined.columns))})"
        )
    double = joined.duplicated(["subject", *key])
    if double.any():
        first = joined[double].iloc[0]
        named = ", ".join(f"{name} {first[name]}" for name in ("subject", *key))
        raise UsageError(
            f"{int(double.sum())} rows occur twice, such as {named}: give one row a "
            "target (one alignment, one session), else it is counted twice"
        )
    return joined


def named_regions(regions: pd.Series) -> pd.Series:
    """Boolean series: whether a target has a region, rather than ``"n/a"`` or none."""
    words = regions.astype(str).str.strip().str.lower()
    return regions.notna() & ~words.isin(_NO_REGION)


def models_of(table: pd.DataFrame) -> list[str]:
    """Names of the models that have a column ``score_<model>``.

    The two linear controls are not named where ``linear``, the stronger of them, is.
    """
    models = [str(name)[6:] for name in table if str(name).startswith("score_")]
    if "linear" in models:
        models = [name for name in models if name not in ("concatenation", "banded")]
    return models
