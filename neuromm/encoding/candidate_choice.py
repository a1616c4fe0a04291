"""Which of several layers or networks a target takes: the best inner score decides.

Scores of an inner cross-validation know training samples alone, so that the choice
costs nothing on the samples that are held out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CandidateChoice"]


@dataclass
class CandidateChoice:
    """The candidate with the best inner score so far, for each target.

    Attributes
    ----------
    score : array of shape (n_targets,)
        Its inner score.
    taken : integer array of shape (n_targets,)
        Its place among the candidates, from 0.
    n_seen : int
        Candidates that were tried.
    """

    score: NDArray[np.float64]
    taken: NDArray[np.intp]
    n_seen: int = 0

    @classmethod
    def of(cls, n_targets: int) -> "CandidateChoice":
        """Begin with no candidate."""
        return cls(np.full(n_targets, -np.inf), np.zeros(n_targets, dtype=np.intp))

    def better(self, inner_scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Targets that take the next candidate.

        Parameters
        ----------
        inner_scores : array of shape (n_targets,)
            Higher is better. A target keeps what it has where they are equal or nan,
            and takes the first candidate whatever its score is.
        """
        better: NDArray[np.bool_] = (inner_scores > self.score) | (self.n_seen == 0)
        self.score[better] = inner_scores[better]
        self.taken[better] = self.n_seen
        self.n_seen += 1
        return better
