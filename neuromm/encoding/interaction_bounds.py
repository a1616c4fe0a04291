"""Synergy: what two predictions tell of a response together and neither alone.

The information that A and B hold about Y is divided into what both hold (redundancy),
what only one of them holds (unique), and what takes both (synergy). Of the synergy,
bounds can be given without a joint table of A, B and Y.

Synergy is no proof of a nonlinear interaction: a response that adds A and B has some,
for one summand tells more of the sum once the other is known.

References
----------
Williams & Beer (2010) Nonnegative decomposition of multivariate information.
arXiv:1004.2515 (the four parts).
Bertschinger, Rauh, Olbrich, Jost & Ay (2014) Quantifying unique information. Entropy
16:2161-2183 (their definition).
Liang et al. (2024) Multimodal learning without labeled multimodal data: guarantees and
applications. ICLR; arXiv:2306.04539 (the bounds).
Cicalese, Gargano & Vaccaro (2019) Minimum-entropy couplings and their applications.
IEEE Trans. Inf. Theory 65:3436-3451 (entropy that a coupling has at least).
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuromm.core import DataError
from neuromm.kernels.coupled_entropy import coupled_entropy

__all__ = [
    "PartialInformation",
    "SynergyBounds",
    "partial_information",
    "synergy_bounds",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PartialInformation:
    """Parts of the information that A and B hold about Y.

    Attributes
    ----------
    redundancy, unique_a, unique_b, synergy : arrays of shape (...)
        In bits, to 1e-6; they add up to I(A, B; Y). nan for a table that holds nan or
        nothing.
    """

    redundancy: Floats
    unique_a: Floats
    unique_b: Floats
    synergy: Floats


@dataclass(frozen=True, kw_only=True)
class SynergyBounds:
    """What is known of the synergy of A and B without their joint table with Y.

    Attributes
    ----------
    redundancy, unique_a, unique_b : arrays of shape (...)
        In bits; the tables of A and Y and of B and Y determine them.
    lower_redundancy : array of shape (...)
        Least synergy given how much A and B share, and how much of it with Y.
    lower_disagreement : array of shape (...)
        Least synergy given how far p(y | a) and p(y | b) lie apart.
    upper : array of shape (...)
        Largest synergy.
    """

    redundancy: Floats
    unique_a: Floats
    unique_b: Floats
    lower_redundancy: Floats
    lower_disagreement: Floats
    upper: Floats

    @property
    def lower(self) -> Floats:
        """The larger of both lower bounds; it says nothing where it is negative."""
        return np.maximum(self.lower_redundancy, self.lower_disagreement)


def partial_information(joint: ArrayLike) -> PartialInformation:
    """Divide the information that A and B hold about Y.

    Parameters
    ----------
    joint : array of shape (..., n_a, n_b, n_y)
        Counts or probabilities; each table is scaled to sum 1.

    Returns
    -------
    parts : PartialInformation

    Raises
    ------
    neuromm.core.DataError
        If there are negative values, or fewer than three axes.

    Notes
    -----
    Among the joint distributions q with the given q(a, y) and q(b, y), let I* be the
    least I_q(A, B; Y). Then ``redundancy = I(A; Y) + I(B; Y) - I*``, ``unique = I(A; Y)
    - redundancy`` (likewise for B) and ``synergy = I(A, B; Y) - I*``.

    Examples
    --------
    >>> exclusive_or = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
    >>> partial_information(exclusive_or).synergy.round(6)
    np.float64(1.0)
    """
    p, shape, known = _tables(joint, 3, "joint")
    return _in_shape(divided(p), shape, known)


def synergy_bounds(
    joint_ay: ArrayLike, joint_by: ArrayLike, joint_ab: ArrayLike
) -> SynergyBounds:
    """Bound the synergy of A and B from the three tables of pairs.

    Nothing has to be recorded together with both A and B but their own co-occurrence:
    one cohort with A and Y, one with B and Y, and pairs of A and B without Y.

    Parameters
    ----------
    joint_ay : array of shape (..., n_a, n_y)
    joint_by : array of shape (..., n_b, n_y)
    joint_ab : array of shape (..., n_a, n_b)
        Counts or probabilities; each table is scaled to sum 1.

    Returns
    -------
    bounds : SynergyBounds

    Raises
    ------
    neuromm.core.DataError
        If tables disagree about p(a), p(b) or p(y) by more than 1e-6, have other
        sizes, or hold negative values.

    Notes
    -----
    With R, U_a, U_b of the tables of pairs (see `partial_information`):

    * ``lower_redundancy = R - I(A; B) + min I(A; B | Y)``, the least over joint
      distributions with the given p(a, b) and one of p(a, y) and p(b, y): the larger
      of these two.
    * ``lower_disagreement = E |p(y | a) - p(y | b)|_1^2 / (8 ln 2) - (U_a + U_b) / 2``,
      over p(a, b). By Pinsker's inequality, I(B; Y | A) and I(A; Y | B) are at least
      ``E |p(y | a, b) - p(y | a)|_1^2 / (2 ln 2)`` and likewise for b, and
      ``|x - z|^2 <= 2 |x - y|^2 + 2 |y - z|^2``. The published bound has another
      constant, with which some distributions violate it.
    * ``upper = H(A, B) + H(Y) - H(A, B, Y) - R - U_a - U_b``, for H(A, B, Y) the
      least entropy that any coupling of p(a, b) with p(y), of p(a, y) with p(b) and of
      p(b, y) with p(a) has at least: the largest of these three.
    """
    ay, shape, known_ay = _tables(joint_ay, 2, "joint_ay")
    by, _, known_by = _tables(joint_by, 2, "joint_by")
    ab, _, known_ab = _tables(joint_ab, 2, "joint_ab")
    _check_sizes(ay, by, ab)
    known = known_ay & known_by & known_ab
    for table in (ay, by, ab):  # uniform, as those that are not known
        table[~known] = 1 / np.prod(table.shape[1:])
    _check_agreement(ay, by, ab)
    return _in_shape(bounded(ay, by, ab), shape, known)


def _entropy(p: Floats) -> Floats:
    """Bits of each table, over all axes but the first."""
    logs = np.log2(np.where(p > 0, p, 1.0))
    return np.asarray(-(p * logs).sum(axis=tuple(range(1, p.ndim))))


def _information(p: Floats) -> Floats:
    """I(X; Y) of tables (table, x, y)."""
    return _entropy(p.sum(axis=2)) + _entropy(p.sum(axis=1)) - _entropy(p)


def divided(p: Floats, tol: float = 2e-7) -> PartialInformation:
    """`partial_information` of probabilities (table, a, b, y), to ``tol`` bits."""
    n_tables, n_a, n_b, n_y = p.shape
    redundancy, unique_a, unique_b, least = _of_pairs(p.sum(2), p.sum(1), tol)
    return PartialInformation(
        redundancy=redundancy,
        unique_a=unique_a,
        unique_b=unique_b,
        synergy=_information(p.reshape(n_tables, n_a * n_b, n_y)) - least,
    )


def _of_pairs(
    ay: Floats, by: Floats, tol: float = 2e-7
) -> tuple[Floats, Floats, Floats, Floats]:
    """R, U_a, U_b and the least I(A, B; Y)."""
    of_a, of_b = _information(ay), _information(by)
    least = _entropy(ay.sum(axis=1)) - coupled_entropy(ay, by, tol)
    redundancy = of_a + of_b - least
    return redundancy, of_a - redundancy, of_b - redundancy, least


def bounded(ay: Floats, by: Floats, ab: Floats) -> SynergyBounds:
    """`synergy_bounds` of probabilities that agree, (table, ., .)."""
    redundancy, unique_a, unique_b, least = _of_pairs(ay, by)
    ba, ya, yb = (x.transpose(0, 2, 1) for x in (ab, ay, by))
    given_y = np.maximum(
        _entropy(ay) - _entropy(ay.sum(1)) - coupled_entropy(ba, ya),
        _entropy(by) - _entropy(by.sum(1)) - coupled_entropy(ab, yb),
    )
    p_a, p_b, p_y = ab.sum(axis=2), ab.sum(axis=1), ay.sum(axis=1)
    joint = np.max(
        [_least_joint_entropy(*pair) for pair in ((ab, p_y), (ay, p_b), (by, p_a))],
        axis=0,
    )
    return SynergyBounds(
        redundancy=redundancy,
        unique_a=unique_a,
        unique_b=unique_b,
        lower_redundancy=redundancy - _information(ab) + given_y,
        lower_disagreement=_disagreement(ay, by, ab) / (8 * np.log(2))
        - (unique_a + unique_b) / 2,
        upper=_entropy(ab) + _entropy(p_y) - joint - least,
    )


def _disagreement(ay: Floats, by: Floats, ab: Floats) -> Floats:
    """Mean over p(a, b) of |p(y | a) - p(y | b)|_1^2."""
    given = [
        x / np.where(mass > 0, mass, 1.0)
        for x, mass in ((x, x.sum(axis=2, keepdims=True)) for x in (ay, by))
    ]
    apart = np.abs(given[0][:, :, None] - given[1][:, None]).sum(axis=3)
    return np.asarray((ab * apart**2).sum(axis=(1, 2)))


def _least_joint_entropy(first: Floats, second: Floats) -> Floats:
    """Entropy of the largest distribution that both majorise."""
    flat = [x.reshape(len(x), int(np.prod(x.shape[1:]))) for x in (first, second)]
    size = max(x.shape[1] for x in flat)
    padded = [np.pad(x, ((0, 0), (0, size - x.shape[1]))) for x in flat]
    sums = [np.cumsum(-np.sort(-x, axis=1), axis=1) for x in padded]
    return _entropy(np.diff(np.minimum(*sums), axis=1, prepend=0.0))


_Parts = TypeVar("_Parts", PartialInformation, SynergyBounds)


def _in_shape(
    found: _Parts, shape: tuple[int, ...], known: NDArray[np.bool_]
) -> _Parts:
    """Values in the shape that tables came in, nan where there was none."""
    values = {}
    for field in fields(found):
        value = np.where(known, getattr(found, field.name), np.nan)
        values[field.name] = value.reshape(shape)[()]
    return type(found)(**values)


def _tables(
    tables: ArrayLike, n_axes: int, name: str
) -> tuple[Floats, tuple[int, ...], NDArray[np.bool_]]:
    """Probabilities (table, ...), the shape of tables, and which of them are known."""
    given = np.asarray(tables, dtype=np.float64)
    if given.ndim < n_axes or 0 in given.shape[-n_axes:] or np.any(given < 0):
        raise DataError(
            f"{name} must hold tables of counts or probabilities in its last {n_axes} "
            f"axes, none negative, got shape {given.shape}"
            + (f" with least value {np.nanmin(given):g}" if np.any(given < 0) else "")
        )
    shape = given.shape[:-n_axes]
    sizes = given.shape[-n_axes:]
    flat = given.reshape(int(np.prod(shape)), *sizes)
    axes = tuple(range(1, n_axes + 1))
    total = flat.sum(axis=axes, keepdims=True)
    known = np.isfinite(total) & (total > 0)
    uniform = 1 / np.prod(sizes)
    p = np.where(known, flat / np.where(known, total, 1.0), uniform)
    return p, shape, known.reshape(-1)


def _shared_margins(
    ay: Floats, by: Floats, ab: Floats
) -> list[tuple[str, str, Floats, str, Floats]]:
    return [
        ("y", "joint_ay", ay.sum(axis=1), "joint_by", by.sum(axis=1)),
        ("a", "joint_ay", ay.sum(axis=2), "joint_ab", ab.sum(axis=2)),
        ("b", "joint_by", by.sum(axis=2), "joint_ab", ab.sum(axis=1)),
    ]


def _check_sizes(ay: Floats, by: Floats, ab: Floats) -> None:
    for variable, one, p, other, same in _shared_margins(ay, by, ab):
        if p.shape != same.shape:
            raise DataError(
                f"{one} and {other} must have as many tables, and as many values of "
                f"{variable}, got {p.shape} and {same.shape}"
            )


def _check_agreement(ay: Floats, by: Floats, ab: Floats) -> None:
    for variable, one, p, other, same in _shared_margins(ay, by, ab):
        apart = float(np.abs(p - same).max(initial=0.0))
        if apart > 1e-6:
            raise DataError(
                f"{one} and {other} give probabilities of {variable} that differ by "
                f"{apart:.2g}. Tables of several cohorts must describe one population: "
                f"weigh the rows of one so that its p({variable}) is that of the other."
            )
