"""Which rows of two modalities belong together: by place, by stimulus, and if present.

The sum over the positives of a sample needs no matrix of pairs: the cosines of a row
with all rows of its stimulus add up to its product with their sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuromm.losses.row_checks import checked_mask, unit_batch

__all__ = [
    "Pairs",
    "positive_cosines",
    "stimulus_counts",
    "stimulus_ids",
    "stimulus_means",
]


@dataclass(frozen=True)
class Pairs:
    """Unit rows of two modalities that are present, and their stimuli.

    Attributes
    ----------
    a, b : tensors of shape (n_a, n_features) and (n_b, n_features)
        Unit rows, of float32 or float64.
    ids_a, ids_b : tensors of int64, of shapes (n_a,) and (n_b,)
        Rows of the same number belong together.
    """

    a: Tensor
    b: Tensor
    ids_a: Tensor
    ids_b: Tensor

    @classmethod
    def of(
        cls,
        a: Tensor,
        b: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
        names: tuple[str, str] = ("a", "b"),
    ) -> "Pairs":
        """Rows that are present, checked and normalised.

        Parameters
        ----------
        a, b : tensors of shape (n_samples, n_features)
        labels : tensor of int of shape (n_samples,), optional
        mask : tensor of bool of shape (n_samples,) or (n_samples, 2), optional
            Samples that count, or which of the two a sample has. Rows that are left
            out are not read.
        names : tuple of two str
            What errors call the two.

        Raises
        ------
        TypeError, ValueError
            If shapes do not match, or a row that counts is zero or not finite.
        """
        named = [(names[0], a), (names[1], b)]
        if mask is None:
            unit_a, unit_b = unit_batch(named)
            ids_a = ids_b = stimulus_ids(labels, a)
        else:
            has_a, has_b = checked_mask(mask, names[0], a, 2).T
            unit_a, unit_b = unit_batch(named, [has_a, has_b])
            ids = stimulus_ids(labels, a)
            ids_a, ids_b = ids[has_a], ids[has_b]
        return cls(unit_a, unit_b, ids_a, ids_b)

    @property
    def is_paired(self) -> bool:
        """Whether row i belongs to row i and to no other."""
        same = self.ids_a.shape == self.ids_b.shape
        if not same or not torch.equal(self.ids_a, self.ids_b):
            return False
        return len(self.ids_a.unique()) == len(self.ids_a)


def positive_cosines(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Sum of the cosines of each row of a with its positives, and their number.

    Returns
    -------
    sums : tensor of shape (n_a,)
    counts : tensor of shape (n_a,)
        0 for a row without positives, whose sum is 0.
    """
    if pairs.is_paired:
        return (pairs.a * pairs.b).sum(dim=1), pairs.a.new_ones(len(pairs.a))
    groups, index = torch.cat([pairs.ids_a, pairs.ids_b]).unique(return_inverse=True)
    of_a, of_b = index[: len(pairs.ids_a)], index[len(pairs.ids_a) :]
    sums = pairs.b.new_zeros((len(groups), pairs.b.shape[1]))
    sums = sums.index_add(0, of_b, pairs.b)
    counts = torch.bincount(of_b, minlength=len(groups)).to(pairs.a)
    return (pairs.a * sums[of_a]).sum(dim=1), counts[of_a]


def stimulus_counts(ids: Tensor) -> Tensor:
    """Number of samples of each sample's stimulus, itself included."""
    _, index, counts = ids.unique(return_inverse=True, return_counts=True)
    return counts[index]


def stimulus_means(ids: Tensor, values: Tensor) -> Tensor:
    """For each sample, the mean of the values of all samples of its stimulus.

    Parameters
    ----------
    ids : tensor of int of shape (n_samples,)
    values : tensor of shape (n_samples, ...)
    """
    groups, index = ids.unique(return_inverse=True)
    sums = values.new_zeros((len(groups), *values.shape[1:]))
    counts = torch.bincount(index).to(values).reshape(-1, *[1] * (values.ndim - 1))
    return (sums.index_add(0, index, values) / counts)[index]


def stimulus_ids(labels: Tensor | None, rows: Tensor) -> Tensor:
    """Labels as int64 on the device of the rows; each sample its own without them.

    Raises
    ------
    ValueError
        If there is not one whole number a sample.
    """
    if labels is None:
        return torch.arange(len(rows), device=rows.device)
    labels = torch.as_tensor(labels, device=rows.device)
    if labels.shape != (len(rows),) or labels.is_floating_point():
        raise ValueError(
            f"labels must be {len(rows)} whole numbers, one per sample, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    return labels.long()
