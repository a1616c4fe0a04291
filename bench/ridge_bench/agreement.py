"""Do two estimators give the same numbers? In float32, up to its rounding."""

from pathlib import Path

import numpy as np

from ridge_bench.estimators import Fitted
from ridge_bench.jobs import spread_columns

# Flat score curves swap neighbouring alphas when scores are rounded to float32.
LEAST_SAME_ALPHAS = 0.99
# Scores are R2.
LARGEST_SCORE_DIFFERENCE = 1e-4
# Weights of equal alphas, in units of the largest weight.
LARGEST_COEF_DIFFERENCE = 1e-3

_COLUMNS_AT_ONCE = 2000


def kept(folder, key):
    """What an estimator left in ``folder``; weights stay on disk."""
    return Fitted(
        **{
            name: np.load(Path(folder, f"{key}.{name}.npy"), mmap_mode="r")
            for name in ("best_alphas", "cv_scores", "coef")
        }
    )


def agreement(ours, theirs):
    """Share of equal alphas, and largest differences of scores and of weights there.

    Theirs may be of some of the targets (`spread_columns`).
    """
    columns = spread_columns(ours.best_alphas.size, theirs.best_alphas.size)
    alphas, scores = ours.best_alphas[columns], ours.cv_scores[columns]
    equal = np.isclose(alphas, theirs.best_alphas, rtol=1e-4)
    furthest = largest = 0.0
    for start in range(0, len(columns), _COLUMNS_AT_ONCE):
        part = slice(start, start + _COLUMNS_AT_ONCE)
        weights = theirs.coef[:, part][:, equal[part]]
        step = np.abs(ours.coef[:, columns[part]][:, equal[part]] - weights)
        furthest = max(furthest, float(step.max(initial=0)))
        largest = max(largest, float(np.abs(weights).max(initial=0)))
    return {
        "n_compared": len(columns),
        "same_alphas": float(equal.mean()),
        "score_difference": float(np.abs(scores - theirs.cv_scores).max()),
        "coef_difference": furthest / largest if largest else float("inf"),
    }


def complaint(compared):
    """What does not agree, in words; None if all does."""
    wrong = []
    if not compared["same_alphas"] >= LEAST_SAME_ALPHAS:
        wrong.append(f"only {compared['same_alphas']:.2%} of the alphas are the same")
    if not compared["score_difference"] <= LARGEST_SCORE_DIFFERENCE:
        wrong.append(f"scores differ by {compared['score_difference']:.1e}")
    if not compared["coef_difference"] <= LARGEST_COEF_DIFFERENCE:
        wrong.append(
            f"weights differ by {compared['coef_difference']:.1e} of themselves"
        )
    return "; ".join(wrong) or None
