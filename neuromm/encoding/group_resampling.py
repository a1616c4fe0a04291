"""What other subjects might have shown: resampled subjects and flipped signs.

Subjects are few, and percentiles of their resamples are too close together: by
sqrt((n - 1) / n), and as if the standard error were known. Both are made up for by
taking percentiles further out (Hesterberg's expanded percentile interval).

References
----------
Hesterberg (2015) What teachers should know about the bootstrap. Am. Stat. 69:371-386.
Davison & Hinkley (1997) Bootstrap methods and their application, section 3.8
(clusters are resampled as wholes: resampling within them as well would count the
variance within subjects twice).
Fisher (1935) The design of experiments, section 21 (flipped signs).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

__all__ = ["Alternative", "ratio_draws", "ratio_interval", "sign_flip_p", "tail"]

Alternative = Literal["greater", "two-sided"]

# All 2^n patterns of signs are tried for so many units, a sample of them for more.
_LARGEST_EXACT = 16

# Bytes of signs or counts at a time.
_CHUNK_BYTES = 32 * 10**6


def tail(confidence: float, n_units: int) -> float:
    """Percentile, below 0.5, at which an interval over so few units begins.

    Parameters
    ----------
    confidence : float
        Such as 0.95.
    n_units : int
        Resampled units (subjects), 2 or more.

    Returns
    -------
    tail : float
        Phi(sqrt(n / (n - 1)) t), with t the percentile of Student's t of n - 1
        degrees of freedom: 0.025 in the limit, 0.0086 for 10 subjects.
    """
    t = student.ppf((1 - confidence) / 2, n_units - 1)
    return float(norm.cdf(t * np.sqrt(n_units / (n_units - 1))))


def ratio_draws(
    numerator: NDArray[np.floating],
    denominator: NDArray[np.floating],
    n_resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Ratio of two sums over units, in resamples of the units.

    Parameters
    ----------
    numerator, denominator : arrays of shape (n_units,) or (n_units, n_columns)
        Such as sites and targets of each subject. A mean over subjects has a
        denominator of ones.
    n_resamples : int
    rng : numpy.random.Generator

    Returns
    -------
    draws : array of shape (n_resamples,) or (n_resamples, n_columns)
        nan where a resample has a denominator of 0.
    """
    above, below = (np.asarray(one, dtype=float) for one in (numerator, denominator))
    n_units = len(above)
    equal = np.full(n_units, 1 / n_units)
    step = max(1, _CHUNK_BYTES // (8 * n_units))
    parts = []
    for start in range(0, n_resamples, step):
        counts = rng.multinomial(n_units, equal, min(step, n_resamples - start))
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((counts @ above) / (counts @ below))
    return np.concatenate(parts)


def ratio_interval(
    numerator: NDArray[np.floating],
    denominator: NDArray[np.floating],
    *,
    confidence: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Interval of a ratio of sums over units, from resamples of the units.

    Returns
    -------
    interval : array of shape (2,) or (2, n_columns)
        nan for a single unit, of which nothing can be resampled.
    """
    numerator = np.asarray(numerator, dtype=float)
    if len(numerator) < 2:
        return np.full((2, *numerator.shape[1:]), np.nan)
    draws = ratio_draws(numerator, denominator, n_resamples, rng)
    level = tail(confidence, len(numerator))
    return np.asarray(np.nanquantile(draws, [level, 1 - level], axis=0))


def sign_flip_p(
    values: NDArray[np.floating],
    *,
    alternative: Alternative,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """P of a mean of 0, if each value is as likely with the other sign.

    Parameters
    ----------
    values : array of shape (n_units,)
        One a subject, such as its mean gain.
    alternative : {"greater", "two-sided"}
    n_resamples : int
        Random patterns of signs for more than 16 units; for fewer all 2^n are tried.
    rng : numpy.random.Generator

    Returns
    -------
    p : float
        Share of the patterns, the one at hand among them, with a mean as large.
    smallest : float
        Lowest p that so many units, or so many patterns, can give.
    """
    values = np.asarray(values, dtype=float)
    n_units = len(values)
    # Sums in another order differ by rounding: an equal sum counts as large.
    reach = values.sum() - 1e-12 * np.abs(values).sum()
    if alternative == "two-sided":
        reach = np.abs(values.sum()) - 1e-12 * np.abs(values).sum()
    if n_units <= _LARGEST_EXACT:
        patterns = np.arange(2**n_units)[:, None] >> np.arange(n_units) & 1
        p = _share((1 - 2 * patterns) @ values, reach, alternative)
        sides = 2 if alternative == "two-sided" else 1
        return p, sides / 2**n_units
    step = max(1, _CHUNK_BYTES // (8 * n_units))
    exceeding = 0.0
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        signs = 1 - 2 * rng.integers(2, size=(size, n_units))
        exceeding += size * _share(signs @ values, reach, alternative)
    return (1 + round(exceeding)) / (1 + n_resamples), 1 / (1 + n_resamples)


def _share(sums: NDArray[np.floating], reach: float, alternative: Alternative) -> float:
    if alternative == "two-sided":
        sums = np.abs(sums)
    return float((sums >= reach).mean())
