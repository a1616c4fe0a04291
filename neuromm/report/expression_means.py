"""Scores of expression over sections: means of patients, intervals, differences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from neuromm.core import UsageError
from neuromm.metrics import bootstrap_interval
from neuromm.report.expression_scores import MEASURES, RIDGE

__all__ = [
    "LEFT_OUT",
    "checked_rows",
    "left_out",
    "model_differences",
    "models_of",
    "patient_means",
]

_KEYS = ("section", "patient", "fold", "model")
_COUNTS = ("n_spots", "n_constant")

LEFT_OUT: Mapping[str, str] = {
    "": "sections or regions",
    "trained": "nothing",
    "random": "random spots",
}
"""What kinds of folds left out in training, the honest one first."""


def checked_rows(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Rows with the columns of a summary, names as words.

    Raises
    ------
    UsageError
        If a column is missing, a row comes twice, or ``model`` has none.
    """
    if missing := [n for n in (*_KEYS, *MEASURES, *_COUNTS) if n not in rows]:
        raise UsageError(f"rows lack the columns {', '.join(missing)}")
    if rows[list(_KEYS)].isna().any(axis=None):
        raise UsageError(f"rows need a value in each of {', '.join(_KEYS)}")
    table = rows.astype(dict.fromkeys(_KEYS, str)).reset_index(drop=True)
    table = table.astype(dict.fromkeys(MEASURES, float))
    twice = table.duplicated(["section", "fold", "model"])
    if twice.any():
        first = table[twice].iloc[0]
        raise UsageError(
            f"rows hold {first['model']} twice for section {first['section']}, fold "
            f"{first['fold']}"
        )
    patients = table.groupby("section")["patient"].nunique()
    if (patients > 1).any():
        raise UsageError(
            f"section {patients.idxmax()} has several patients in rows; sections need "
            "names of their own"
        )
    if model not in set(table["model"]):
        raise UsageError(
            f"rows must hold the model of the run, {model}, got "
            f"{', '.join(sorted(set(table['model']))) or 'none'}"
        )
    return table


def left_out(rows: pd.DataFrame) -> pd.Series:
    """What a row's fold left out, as its name says: a key of `LEFT_OUT`."""
    kinds = pd.Series("", index=rows.index)
    kinds[rows["fold"].str.contains("trained on", case=False)] = "trained"
    kinds[rows["fold"].str.contains("random", case=False)] = "random"
    return kinds


def models_of(rows: pd.DataFrame, model: str) -> list[str]:
    """Names of models: that of the run, others as they come, the ridge probe last."""
    names = [model, *rows["model"]]
    names = list(dict.fromkeys(name for name in names if name != RIDGE))
    return names + ([RIDGE] if (rows["model"] == RIDGE).any() else [])


def patient_means(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Mean over patients of the mean over each one's sections, with its interval.

    Returns
    -------
    means : DataFrame
        ``model``, ``measure``, ``mean``, ``low``, ``high`` (95 %; nan with fewer than
        two patients), ``n_patients`` and ``n_rows`` with a value.
    """
    found = [
        (model, measure, *_mean(own[measure], own["patient"]))
        for model in models
        for own in [rows[rows["model"] == model]]
        for measure in MEASURES
    ]
    columns = ["model", "measure", "mean", "low", "high", "n_patients", "n_rows"]
    return pd.DataFrame(found, columns=columns)


def model_differences(rows: pd.DataFrame, model: str, other: str) -> pd.DataFrame:
    """`patient_means` of differences between two models on the same spots.

    Returns
    -------
    differences : DataFrame
        As of `patient_means`; of sections and folds that both models have.
    """
    keys = ["section", "patient", "fold"]
    first = rows[rows["model"] == model].set_index(keys)[list(MEASURES)]
    second = rows[rows["model"] == other].set_index(keys)[list(MEASURES)]
    apart = (first - second).dropna(how="all").reset_index()
    apart["model"] = f"{model} - {other}"
    return patient_means(apart, [f"{model} - {other}"])


def _mean(
    values: pd.Series, patients: pd.Series
) -> tuple[float, float, float, int, int]:
    known = values[np.isfinite(values)]
    means = known.groupby(patients[known.index]).mean()
    low, high = bootstrap_interval(
        known.to_numpy(), groups=patients[known.index].to_numpy()
    )
    mean = float(means.mean()) if len(means) else float("nan")
    return mean, low, high, len(means), len(known)
