"""Explained variance divided among feature spaces.

Two ways, for two kinds of model:

`product_measure`      one joint model whose prediction is a sum over spaces: a share
                       of its R2 for each space.
`variance_partition`   a model for every subset of spaces: what only one of them
                       explains, and what is shared by which.

Both add up to the R2 of the full model, and both can give negative parts that mean
something. Nothing is clipped here.

References
----------
Pratt (1987) Dividing the indivisible. Proc. 2nd Int. Tampere Conf. Stat. 245-260 (the
product measure).
Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant (2022) Feature-space selection with
banded ridge regression. NeuroImage 264:119728.
Lescroart, Stansbury & Gallant (2015) Fourier power, subjective distance, and object
categories all provide plausible models of BOLD responses in scene-selective visual
areas. Front. Comput. Neurosci. 9:135 (variance partitioning).
Lin, Naselaris, Kay & Wehbe (2024) Stacked regressions and structured variance
partitioning for interpretable brain maps. NeuroImage, September 2024;
doi:10.1101/2023.04.23.537988.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError, UsageError
from neuromm.kernels.second_moments import SecondMoments

__all__ = [
    "partition_models",
    "product_measure",
    "structured_partition",
    "variance_partition",
]

Floats = NDArray[np.float64]
Subset = frozenset[str]

_MOST_SPACES = 6  # 63 models; each further space doubles them
_AND = "&"


def product_measure(moments: SecondMoments) -> Floats:
    """Share of each feature space in the R2 of a joint model.

    Parameters
    ----------
    moments : SecondMoments
        Of held-out responses **minus the mean of the training responses** of their
        fold, and of what each space adds to the prediction, ``(X_i - training mean)
        W_i``: everything but the intercept.

    Returns
    -------
    r2 : array of shape (n_spaces, n_targets)
        ``R2_i = sum_t (2 y yhat_i - yhat_i yhat) / sum_t y^2`` with ``yhat = sum_i
        yhat_i``. The sum over spaces is ``moments.joint_r2()``. A share is negative
        where a space does harm, alone or by its correlation with others. nan for a
        target that is constant or holds nan.

    Notes
    -----
    **Which mean.** With all spaces at zero the joint model predicts the mean of the
    training responses. That model must have R2 0, for no space has earned its gain or
    loss, so sums of squares are about the training mean. About the mean of the
    held-out responses instead, the difference of the two means, which belongs to no
    space, would have to be charged to some. On one held-out set the joint R2 is
    therefore at least that of `r2_score`, ``1 - sum (y - yhat)^2 / sum (y - mean
    y)^2``; they agree where the two means do.

    To divide the R2 of `r2_score` itself, subtract the mean of the held-out responses
    from them and give the difference of the means (training minus held-out, a
    constant) as one more space: its share is what the intercept costs.

    ``himalaya.scoring.r2_score_split`` has the same formula and asks for responses of
    mean zero.

    Examples
    --------
    >>> vision = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> language = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    >>> y = 2 * vision + language
    >>> product_measure(SecondMoments.of(y, np.stack([2 * vision, language]))).ravel()
    array([0.8, 0.2])
    """
    products = moments.products_about_zero()
    explained = 2 * products[0, 1:] - products[1:, 1:].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = explained / products[0, 0]
    return np.where(np.isnan(moments.total_sum_squares()), np.nan, r2)


def partition_models(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Subsets of feature spaces that `variance_partition` needs a model of.

    Parameters
    ----------
    names : sequence of str
        One to six feature spaces.

    Returns
    -------
    subsets : list of tuple of str
        All 2^S - 1 that are not empty: first single spaces, last all together.

    Raises
    ------
    UsageError
        If there are none or more than six, if a name comes twice, is empty or
        contains ``&``.

    Examples
    --------
    >>> partition_models(["vision", "language"])
    [('vision',), ('language',), ('vision', 'language')]
    """
    spaces = _checked_names(names)
    if len(spaces) > _MOST_SPACES:
        raise UsageError(
            f"variance partitioning of {len(spaces)} feature spaces would take "
            f"{2 ** len(spaces) - 1} models; at most {_MOST_SPACES} spaces "
            f"({2**_MOST_SPACES - 1} models) are divided. Join spaces that belong "
            "together, or use structured_partition for an order of spaces."
        )
    sizes = range(1, len(spaces) + 1)
    return [subset for size in sizes for subset in combinations(spaces, size)]


def variance_partition(scores: Mapping[Any, ArrayLike]) -> xr.DataArray:
    """Variance that feature spaces explain alone and in common.

    Parameters
    ----------
    scores : mapping from subset of spaces to array of shape (n_targets,)
        Held-out R2 of a model of each subset that `partition_models` lists, scored on
        the same samples. A subset is a tuple or frozenset of names, or a text such as
        ``"vision&language"``. Arrays may be DataArrays, whose target coordinates are
        kept.

    Returns
    -------
    parts : DataArray, dims (part, target)
        R2 that exactly the spaces of a part have in common: ``"vision"`` is what no
        other space explains, ``"vision&language"`` what both explain and no third.
        Parts add up to the R2 of the full model. Negative parts are left as they are:
        a negative shared part means that spaces predict more together than the sum of
        what they predict alone (suppression), or noise in the scores. nan for a target
        with nan in any score. Coordinate ``n_spaces`` counts the spaces of a part.

    Raises
    ------
    UsageError
        If subsets are missing (all are named), named twice, or of more than six
        spaces.
    DataError
        If scores are of different targets.

    Notes
    -----
    With R2(A) of the model of the spaces A, and N all spaces, ``part(B)`` is the
    Moebius inverse of what is lost without A,

        ``part(B) = sum_{A in B} (-1)^(|B| - |A|) (R2(N) - R2(N minus A))``,

    for two spaces ``unique(1) = R2(12) - R2(2)`` and ``shared = R2(1) + R2(2) -
    R2(12)``.

    Examples
    --------
    >>> parts = variance_partition(
    ...     {"vision": [0.3], "language": [0.2], "vision&language": [0.4]}
    ... )
    >>> parts.to_pandas().round(3)[0].to_dict()
    {'vision': 0.2, 'language': 0.1, 'vision&language': 0.1}
    """
    given = _by_subset(scores)
    spaces = _space_order(given)
    subsets = partition_models(spaces)
    arrays, coords = _same_targets(_needed(given, subsets))
    bits = [sum(1 << spaces.index(name) for name in subset) for subset in subsets]
    lost = _lost_without(dict(zip(bits, arrays, strict=True)), len(spaces))
    # Moebius inversion over subsets, one space at a time.
    for space in range(len(spaces)):
        for subset in range(len(lost)):
            if subset >> space & 1:
                lost[subset] -= lost[subset ^ (1 << space)]
    labels = [_AND.join(subset) for subset in subsets]
    parts = _labelled(lost[bits], labels, coords, "variance_partition")
    return parts.assign_coords(n_spaces=("part", [len(subset) for subset in subsets]))


def structured_partition(
    order: Sequence[str], scores: Mapping[Any, ArrayLike]
) -> xr.DataArray:
    """Variance that each feature space adds to those before it.

    The partition for spaces with a known order, such as the layers of a network: S
    nested models rather than 2^S - 1, and so any number of spaces.

    Parameters
    ----------
    order : sequence of str
        Feature spaces, first the one that is given all it shares with later ones. The
        reversed order asks what each space adds to those behind it.
    scores : mapping from subset of spaces to array of shape (n_targets,)
        As for `variance_partition`: held-out R2 of the models of the first space, of
        the first two, … of all. Further subsets may be there and are not used.

    Returns
    -------
    parts : DataArray, dims (part, target)
        ``R2(first k spaces) - R2(first k - 1)``, labelled by the k-th space. Parts add
        up to the R2 of the full model; negative ones are left as they are. nan for a
        target with nan in any score used.

    Raises
    ------
    UsageError
        If models are missing (all are named) or a name comes twice.
    DataError
        If scores are of different targets.

    References
    ----------
    Lin, Naselaris, Kay & Wehbe (2024), who remove layers from the front or from the
    back of a network.

    Examples
    --------
    >>> scores = {"early": [0.3], "early&late": [0.35]}
    >>> structured_partition(["early", "late"], scores).values.round(2).ravel()
    array([0.3 , 0.05])
    """
    spaces = _checked_names(order)
    nested = [spaces[:k] for k in range(1, len(spaces) + 1)]
    arrays, coords = _same_targets(_needed(_by_subset(scores), nested))
    stacked = np.stack(arrays)
    parts = np.diff(stacked, axis=0, prepend=0)
    parts[:, np.isnan(stacked).any(axis=0)] = np.nan
    return _labelled(parts, list(spaces), coords, "structured_partition")


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    spaces = (names,) if isinstance(names, str) else tuple(names)
    if not spaces or len(set(spaces)) < len(spaces):
        raise UsageError(
            "feature spaces must be named, each once, got "
            f"{', '.join(map(repr, spaces)) or 'no name'}"
        )
    for name in spaces:
        if not isinstance(name, str) or not name or _AND in name:
            raise UsageError(
                f"the name of a feature space must be a text without {_AND!r}, which "
                f"joins names in the labels of parts, got {name!r}"
            )
    return spaces


def _by_subset(scores: Mapping[Any, ArrayLike]) -> dict[Subset, ArrayLike]:
    """Scores by set of names, whichever way the sets were written."""
    given: dict[Subset, ArrayLike] = {}
    for key, score in scores.items():
        parts = key.split(_AND) if isinstance(key, str) else list(key)
        names = _checked_names([p.strip() if isinstance(p, str) else p for p in parts])
        subset = frozenset(names)
        if subset in given:
            raise UsageError(f"two scores are of the model of {_written(names)}")
        given[subset] = score
    return given


def _space_order(given: Mapping[Subset, ArrayLike]) -> tuple[str, ...]:
    """Names in the order of the single spaces, those of sets alone behind."""
    single = [name for subset in given if len(subset) == 1 for name in subset]
    others = sorted({name for subset in given for name in subset}.difference(single))
    return (*single, *others)


def _needed(
    given: Mapping[Subset, ArrayLike], subsets: Sequence[tuple[str, ...]]
) -> dict[str, ArrayLike]:
    """Scores of the subsets in their order, by label."""
    missing = [_written(s) for s in subsets if frozenset(s) not in given]
    if missing:
        raise UsageError(
            f"the R2 of {len(missing)} of {len(subsets)} models is missing: "
            f"{', '.join(missing)}. Fit a model to the features of each of these "
            "sets of spaces together, with the folds of the others."
        )
    return {_written(s): given[frozenset(s)] for s in subsets}


def _written(subset: Sequence[str]) -> str:
    return _AND.join(subset)


def _same_targets(
    scores: Mapping[str, ArrayLike],
) -> tuple[list[Floats], dict[str, Any]]:
    """Scores as float64, and the target coordinates of the first that has some."""
    arrays: list[Floats] = []
    labelled: xr.DataArray | None = None
    for name, score in scores.items():
        array = np.asarray(score, dtype=np.float64)
        if array.ndim != 1 or len(array) != len(arrays[0] if arrays else array):
            expected = f"({len(arrays[0])},)" if arrays else "(n_targets,)"
            raise DataError(
                f"the scores of all models must have shape {expected}, a value a "
                f"target; those of {name} have {array.shape}"
            )
        arrays.append(array)
        if isinstance(score, xr.DataArray):
            labelled = score if labelled is None else labelled
            _check_same_labels(name, labelled, score)
    return arrays, {} if labelled is None else dict(_target_coords(labelled))


def _check_same_labels(name: str, first: xr.DataArray, other: xr.DataArray) -> None:
    dim, other_dim = first.dims[0], other.dims[0]
    if dim in first.coords and other_dim in other.coords:
        if np.array_equal(first[dim].to_numpy(), other[other_dim].to_numpy()):
            return
        raise DataError(
            f"the scores of {name} are of other targets, or in another order, than "
            "those of the first model: were both fitted to the same responses?"
        )


def _target_coords(score: xr.DataArray) -> Mapping[str, Any]:
    return {
        "target" if name == score.dims[0] else str(name): ("target", coord.to_numpy())
        for name, coord in score.coords.items()
        if coord.dims == score.dims
    }


def _lost_without(scores: Mapping[int, Floats], n_spaces: int) -> Floats:
    """R2 that the full model loses without each subset, by its bits."""
    full = (1 << n_spaces) - 1
    nothing = np.zeros_like(scores[full])
    unknown = np.isnan(np.stack(list(scores.values()))).any(axis=0)
    lost = np.stack(
        [scores[full] - scores.get(full ^ bits, nothing) for bits in range(full + 1)]
    )
    lost[:, unknown] = np.nan
    return lost


def _labelled(
    parts: Floats, labels: list[str], coords: Mapping[str, Any], method: str
) -> xr.DataArray:
    return xr.DataArray(
        parts,
        dims=("part", "target"),
        coords={"part": labels, **coords},
        attrs={"method": method, "units": "R2"},
        name="r2",
    )
