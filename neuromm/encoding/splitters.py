"""Folds that keep what belongs together on one side.

Neighbouring samples of a recording resemble each other. A shuffled split, or one
without a gap, lets a model recognise the time instead of the stimulus: an
autocorrelation-only model then reproduces headline results (Hadidi, Feghhi et al.
2025). The splitters have the methods of scikit-learn's and serve wherever those do.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import UsageError

__all__ = [
    "BlockedKFold",
    "RunKFold",
    "Split",
    "as_splits",
    "contiguous_splits",
    "run_rows",
]

Split = tuple[NDArray[np.intp], NDArray[np.intp]]


class RunKFold:
    """Folds of whole runs.

    Parameters
    ----------
    n_splits : int or None
        Number of folds: consecutive runs, as equal in number as can be. None leaves
        one run out at a time.

    Notes
    -----
    ``split(X, y, groups)`` takes the run of each sample as ``groups``. Runs are told
    apart by their label: with several subjects or sessions, make it unique.
    """

    def __init__(self, n_splits: int | None = None) -> None:
        self.n_splits = n_splits

    def __repr__(self) -> str:
        return f"RunKFold(n_splits={self.n_splits})"

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: ArrayLike | None = None
    ) -> int:
        """Return the number of folds; counting runs needs ``groups``."""
        if self.n_splits is not None:
            return self.n_splits
        return len(_run_order(groups)[0])

    def split(
        self, X: Any, y: Any = None, groups: ArrayLike | None = None
    ) -> Iterator[Split]:
        """Yield the rows of training and held-out samples of each fold.

        Raises
        ------
        neuromm.core.UsageError
            If ``groups`` is missing, or there are fewer runs than folds.
        """
        names, codes = _run_order(groups)
        n_splits = len(names) if self.n_splits is None else self.n_splits
        if len(names) < max(n_splits, 2):
            raise UsageError(
                f"{self!r} needs at least {max(n_splits, 2)} runs, got {len(names)} "
                f"({', '.join(str(name) for name in names)}). Ask for fewer folds, or "
                "split within runs with BlockedKFold."
            )
        for runs in np.array_split(np.arange(len(names)), n_splits):
            held_out = np.isin(codes, runs)
            yield np.flatnonzero(~held_out), np.flatnonzero(held_out)


class BlockedKFold:
    """Folds of contiguous time, with a gap between training and held-out samples.

    Parameters
    ----------
    n_splits : int
        Number of blocks, as equal in samples as can be.
    purge : float
        Seconds. Training samples of the same run that are closer than this to a
        held-out sample are dropped: at least the span of the delays and of the
        haemodynamic response in fMRI, at least the epoch in EEG, MEG and iEEG.
    onset : array of shape (n_samples,), optional
        Seconds from the start of the run, a value a row of X. Needed if ``purge`` is
        not 0. Without it the rows are taken to be in order of time.

    Notes
    -----
    ``split(X, y, groups)`` takes the run of each sample as ``groups`` where there are
    several; they follow each other in order of appearance, and time within one says
    nothing about another.
    """

    def __init__(
        self, n_splits: int = 5, purge: float = 0.0, onset: ArrayLike | None = None
    ) -> None:
        self.n_splits = n_splits
        self.purge = purge
        self.onset = onset

    def __repr__(self) -> str:
        return f"BlockedKFold(n_splits={self.n_splits}, purge={self.purge:g} s)"

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: ArrayLike | None = None
    ) -> int:
        """Return the number of folds."""
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: ArrayLike | None = None
    ) -> Iterator[Split]:
        """Yield the rows of training and held-out samples of each fold.

        Raises
        ------
        neuromm.core.UsageError
            If times are missing or of another length than X, there are fewer samples
            than folds, or the purge leaves no training sample.
        """
        n_samples = len(X)
        onset = self._onsets(n_samples)
        codes = np.zeros(n_samples, dtype=np.intp)
        if groups is not None:
            codes = _run_order(groups)[1]
        if not 2 <= self.n_splits <= n_samples:
            raise UsageError(
                f"{self!r} needs between 2 folds and one a sample ({n_samples})"
            )
        in_time = np.lexsort((onset, codes))
        for block in np.array_split(in_time, self.n_splits):
            train = self._train_rows(block, onset, codes)
            if not len(train):
                raise UsageError(
                    f"{self!r} leaves no training sample: the recording spans "
                    f"{np.ptp(onset):g} s. Shorten the purge, or ask for more folds."
                )
            yield train, np.sort(block)

    def _onsets(self, n_samples: int) -> NDArray[np.float64]:
        if self.onset is None:
            if self.purge > 0:
                raise UsageError(
                    f"{self!r} drops samples by time and was given none: pass "
                    "onset=, in seconds from the start of the run, a value a sample"
                )
            return np.arange(n_samples, dtype=np.float64)
        onset = np.asarray(self.onset, dtype=np.float64)
        if onset.shape != (n_samples,):
            raise UsageError(
                f"onset must have one value a sample, got {onset.shape} for "
                f"{n_samples} samples"
            )
        return onset

    def _train_rows(
        self,
        block: NDArray[np.intp],
        onset: NDArray[np.float64],
        codes: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        kept = np.ones(len(onset), dtype=bool)
        for run in np.unique(codes[block]):
            times = onset[block[codes[block] == run]]
            gap = np.maximum(times.min() - onset, onset - times.max())
            kept &= (codes != run) | (gap >= self.purge)
        kept[block] = False
        return np.flatnonzero(kept)


def contiguous_splits(n_samples: int, n_splits: int) -> list[Split]:
    """Contiguous, unshuffled folds: those of scikit-learn's KFold and of himalaya."""
    if not 2 <= n_splits <= n_samples:
        raise UsageError(
            f"cv={n_splits} folds need at least 2 folds and {n_splits} samples, got "
            f"n_samples={n_samples}"
        )
    rows = np.arange(n_samples)
    return [
        (np.setdiff1d(rows, block), block) for block in np.array_split(rows, n_splits)
    ]


def as_splits(
    cv: Any, X: Any, y: Any = None, groups: ArrayLike | None = None
) -> list[Split]:
    """Rows of training and held-out samples of each fold.

    Parameters
    ----------
    cv : int, splitter, or iterable of (train, test)
        An int gives contiguous folds; a splitter has scikit-learn's ``split``.
    X : array of shape (n_samples, n_features)
    y : array, optional
    groups : array of shape (n_samples,), optional
        Run of each sample, for splitters that use it.

    Raises
    ------
    neuromm.core.UsageError
        If ``cv`` is none of these, or a fold has an empty side, overlapping sides or
        rows that do not exist.
    """
    n_samples = len(X)
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        return contiguous_splits(n_samples, int(cv))
    if hasattr(cv, "split") and not isinstance(cv, str):
        found: Iterable[Any] = cv.split(X, y, groups)
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        found = cv
    else:
        raise UsageError(
            "cv must be a number of folds, a splitter with a method split, or a list "
            f"of (train, test) rows, got {cv!r}"
        )
    splits = [
        (_rows(train, n_samples), _rows(test, n_samples)) for train, test in found
    ]
    if not splits:
        raise UsageError("cv gives no fold")
    for number, (train, test) in enumerate(splits):
        if not len(train) or not len(test):
            raise UsageError(f"fold {number} of cv has no training or no test samples")
        if np.intersect1d(train, test).size:
            raise UsageError(f"fold {number} of cv tests on samples it trains on")
    return splits


def run_rows(groups: ArrayLike) -> list[NDArray[np.intp]]:
    """Rows of each run, runs in order of appearance."""
    names, codes = _run_order(groups)
    return [np.flatnonzero(codes == code) for code in range(len(names))]


def _rows(rows: Any, n_samples: int) -> NDArray[np.intp]:
    index = np.asarray(rows)
    if index.dtype == bool:
        index = np.flatnonzero(index)
    index = index.astype(np.intp)
    if index.size and not (index.min() >= 0 and index.max() < n_samples):
        raise UsageError(
            f"cv names rows {index.min()} to {index.max()} of {n_samples} samples"
        )
    return index


def _run_order(groups: ArrayLike | None) -> tuple[list[Any], NDArray[np.intp]]:
    """Labels of runs in order of appearance, and the place of each sample's run."""
    if groups is None:
        raise UsageError(
            "folds of runs need the run of each sample: pass it as groups= (to split "
            "or to fit)"
        )
    labels = np.asarray(groups)
    names, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return list(names[order]), place[codes]
