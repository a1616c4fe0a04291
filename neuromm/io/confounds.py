"""Confound regressors as fMRIPrep writes them.

References
----------
Esteban et al. (2019) fMRIPrep. Nature Methods 16:111-116; names of the columns in
https://fmriprep.org/en/stable/outputs.html (confounds).
Friston et al. (1996) Movement-related effects in fMRI time-series. Magnetic
Resonance in Medicine 35:346-355 (the 24 motion parameters).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neuromm.core import DataError
from neuromm.io.content import require_content

__all__ = ["CONFOUND_SETS", "load_confounds"]

_MOTION = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")

CONFOUND_SETS: dict[str, tuple[str, ...]] = {
    "motion6": _MOTION,
    "motion24": tuple(
        name + suffix
        for suffix in ("", "_derivative1", "_power2", "_derivative1_power2")
        for name in _MOTION
    ),
    "wm_csf": ("white_matter", "csf"),
    "acompcor5": tuple(f"a_comp_cor_{i:02d}" for i in range(5)),
    "cosine": ("cosine*",),  # as many as the length of the run asks for
}

# Differences between neighbouring volumes: the first volume has none.
_DIFFERENCES = re.compile(r"derivative\d|framewise_displacement|dvars|rmsd")


def load_confounds(path: str | Path, columns: str | Sequence[str]) -> pd.DataFrame:
    """Read confound regressors.

    Parameters
    ----------
    path : path-like
        ``*_desc-confounds_timeseries.tsv``: a row a volume.
    columns : str or sequence of str
        Names of columns, or of sets: ``motion6``; ``motion24`` (with derivatives and
        squares); ``wm_csf``; ``acompcor5`` (first five anatomical components);
        ``cosine`` (all discrete cosines of fMRIPrep's high-pass).

    Returns
    -------
    confounds : DataFrame of float, shape (n_volumes, n_columns)
        In the order asked for, each column once. The first value of a derivative (and
        of other differences between volumes), which does not exist, is 0.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If columns are missing, hold text, or have other missing values.
    """
    path = Path(path)
    table = _table(path)
    names = _expanded(columns, list(table.columns), path)
    confounds: pd.DataFrame = (
        table[names].apply(pd.to_numeric, errors="coerce").astype(float)
    )
    text = [n for n in names if (confounds[n].isna() & table[n].notna()).any()]
    if text:
        raise DataError(
            f"expected numbers (or n/a) in {', '.join(text)}, got text", path
        )
    differences = [name for name in names if _DIFFERENCES.search(name)]
    confounds.loc[confounds.index[:1], differences] = confounds.loc[
        confounds.index[:1], differences
    ].fillna(0.0)
    _check_complete(confounds, path)
    return confounds


def _table(path: Path) -> pd.DataFrame:
    try:
        table: pd.DataFrame = pd.read_csv(
            require_content(path), sep="\t", na_values=["n/a"]
        )
        return table
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"is not a table of confounds ({error})", path) from error


def _expanded(
    columns: str | Sequence[str], present: list[str], path: Path
) -> list[str]:
    asked = [columns] if isinstance(columns, str) else list(columns)
    wanted = [name for entry in asked for name in CONFOUND_SETS.get(entry, (entry,))]
    names: list[str] = []
    missing: list[str] = []
    for name in wanted:
        matches = (
            [p for p in present if re.fullmatch(r"cosine\d+", p)]
            if name == "cosine*"
            else [p for p in present if p == name]
        )
        names += matches
        missing += [] if matches else [name]
    if missing:
        raise DataError(
            f"lacks {', '.join(missing)} (columns: {_shortened(present)}; sets: "
            f"{', '.join(CONFOUND_SETS)})",
            path,
        )
    return list(dict.fromkeys(names))


def _shortened(names: Sequence[str], limit: int = 30) -> str:
    more = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _check_complete(confounds: pd.DataFrame, path: Path) -> None:
    values = confounds.to_numpy()
    volumes, columns = np.nonzero(~np.isfinite(values))
    if len(volumes):
        names = [str(confounds.columns[int(c)]) for c in dict.fromkeys(columns)]
        raise DataError(
            f"{', '.join(names)}: {len(volumes)} values are missing or infinite, the "
            f"first in volume {volumes[0] + 1}; only the first value of a derivative "
            "may be n/a",
            path,
        )
