"""Largest entropy of one variable given two others, of which only pairs are known.

A joint distribution of A, B and Z is sought with given p(a, z) and p(b, z) for which
H(Z | A, B) is largest: the convex problem behind the decomposition of information by
Bertschinger et al. It is solved for many tables at once, and each answer comes with a
bound on its error.

References
----------
Bertschinger, Rauh, Olbrich, Jost & Ay (2014) Quantifying unique information. Entropy
16:2161-2183.
Makkeh et al. (2018) BROJA-2PID: a robust estimator for bivariate partial
information decomposition. Entropy 20:271 (the dual).
Wright (1997) Primal-dual interior-point methods. SIAM.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["coupled_entropy"]

Floats = NDArray[np.float64]

# Probabilities below this are taken for 0: they change an entropy by less than 1e-7
# bits, and would spoil the condition of the equations.
_NEGLIGIBLE = 1e-10

# A step aims at a fifth of the present distance from the optimum and goes nine tenths
# of the way to where a probability would be 0. Bolder settings fail on tables with
# rare cells, and save one or two of 13 steps on others.
_CENTRING = 0.2
_TO_BOUNDARY = 0.9
_MAX_STEPS = 100

# Equations of a chunk of tables stay near this many bytes.
_CHUNK_BYTES = 32 * 10**6


def coupled_entropy(first: Floats, second: Floats, tol: float = 2e-7) -> Floats:
    """Largest H(Z | A, B) over joint distributions with given p(a, z) and p(b, z).

    Parameters
    ----------
    first : array of shape (n_tables, n_a, n_z)
        Probabilities p(a, z), each table with sum 1.
    second : array of shape (n_tables, n_b, n_z)
        Probabilities p(b, z) with the same p(z).
    tol : float
        In bits: a table is done when the optimum is known to lie within it.

    Returns
    -------
    entropy : array of shape (n_tables,)
        In bits, at most ``tol`` below the largest.

    Raises
    ------
    ArithmeticError
        If some table does not converge.

    Notes
    -----
    With q(a, b) = sum_z q(a, b, z), minimise f(q) = sum q log(q / q(a, b)). Its dual is
    to maximise <u, p(a, z)> + <v, p(b, z)> subject to log sum_z exp(u(a, z) + v(b, z))
    <= 0 for all a, b. Any u and v, shifted until they satisfy that, bound f from below:
    the difference of both is the error that is checked.

    A primal-dual interior-point method takes about 13 steps. A Hessian of f with a
    barrier is, for each (a, b), a diagonal matrix less one of rank 1, so its inverse is
    known, and a step solves (n_a + n_b) n_z equations.
    """
    n_tables, n_a, n_z = first.shape
    size = (n_a + second.shape[1]) * n_z
    width = max(1, _CHUNK_BYTES // (8 * size * size))
    entropy = np.empty(n_tables)
    for start in range(0, n_tables, width):
        chunk = slice(start, start + width)
        entropy[chunk] = _solve(first[chunk], second[chunk], tol * np.log(2))
    return np.asarray(entropy / np.log(2))


@dataclass
class _State:
    """Tables that are not done. Cells (table, a, b, z); margins (table, a or b, z)."""

    margins: Floats  # (table, n_a + n_b, z)
    cell: NDArray[np.bool_]  # which can be other than 0
    q: Floats  # probability, 1 where there is no cell
    slack: Floats  # dual of q >= 0
    dual: Floats  # of the margins

    def kept(self, rows: NDArray[np.bool_]) -> "_State":
        return _State(
            self.margins[rows],
            self.cell[rows],
            self.q[rows],
            self.slack[rows],
            self.dual[rows],
        )


def _solve(first: Floats, second: Floats, tol: float) -> Floats:
    """Entropy in nats of a chunk of tables."""
    n_a = first.shape[1]
    state = _start(*_without_negligible(first, second))
    value = np.empty(len(first))
    open_ = np.arange(len(first))
    for _ in range(_MAX_STEPS):
        gradient = _gradient(state)
        objective = np.where(state.cell, state.q * gradient, 0.0).sum(axis=(1, 2, 3))
        value[open_] = objective
        ongoing = ~(np.abs(objective - _dual_bound(state, n_a)) <= tol)
        if not ongoing.any():
            return -value
        open_, state, gradient = open_[ongoing], state.kept(ongoing), gradient[ongoing]
        _advance(state, gradient, n_a, tol)
    raise ArithmeticError(
        f"{len(open_)} of {len(first)} tables of probabilities did not converge in "
        f"{_MAX_STEPS} steps; is there one with cells of very different probability?"
    )


def _without_negligible(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Margins without tiny probabilities, of the same p(z) to rounding."""
    total = first.sum(axis=1, keepdims=True)
    cleaned = []
    for margin in (first, second):
        kept = np.where(margin > _NEGLIGIBLE, margin, 0.0)
        mass = kept.sum(axis=1, keepdims=True)
        cleaned.append(
            kept * np.where(mass > 0, total / np.where(mass > 0, mass, 1), 0)
        )
    present = (cleaned[0].sum(1) > 0) & (cleaned[1].sum(1) > 0)
    first, second = (np.where(present[:, None], margin, 0.0) for margin in cleaned)
    return first, second


def _start(first: Floats, second: Floats) -> _State:
    """A and B independent given Z, which meets the margins."""
    cell = (first[:, :, None] > 0) & (second[:, None] > 0)
    total = first.sum(axis=1)[:, None, None]
    q = np.where(
        cell,
        first[:, :, None] * second[:, None] / np.where(total > 0, total, 1.0),
        1.0,
    )
    margins = np.concatenate([first, second], axis=1)
    barrier = 0.1 / np.maximum(cell.sum(axis=(1, 2, 3)), 1)
    slack = np.where(cell, barrier[:, None, None, None] / q, 0.0)
    return _State(margins, cell, q, slack, np.zeros_like(margins))


def _gradient(state: _State) -> Floats:
    """Log q(z | a, b), 0 where there is no cell."""
    pair = np.where(state.cell, state.q, 0.0).sum(axis=3, keepdims=True)
    return np.where(state.cell, np.log(state.q / np.where(pair > 0, pair, 1.0)), 0.0)


def _dual_bound(state: _State, n_a: int) -> Floats:
    """What no coupling of these margins can fall below, in nats."""
    exponent = np.where(
        state.cell, state.dual[:, :n_a, None] + state.dual[:, None, n_a:], -np.inf
    )
    top = exponent.max(axis=3, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        excess = top[..., 0] + np.log(np.exp(exponent - top).sum(axis=3))
    value = (state.dual * state.margins).sum(axis=(1, 2))
    # u and v are lowered until all constraints hold, for each pair the one of them
    # whose margin has less mass to pay with.
    mass = state.margins.sum(axis=2)
    of_a, of_b = mass[:, :n_a, None], mass[:, None, n_a:]
    lower_b = np.where(of_a > of_b, np.maximum(excess, 0.0), 0.0).max(axis=1)
    lower_a = (excess - lower_b[:, None]).max(axis=2)
    lower_a = np.where(mass[:, :n_a] > 0, lower_a, 0.0)
    lowered = (mass * np.concatenate([lower_a, lower_b], axis=1)).sum(axis=1)
    return np.asarray(value - lowered)


def _advance(state: _State, gradient: Floats, n_a: int, tol: float) -> None:
    """Change the state by a step of Newton's method, damped to stay positive."""
    q, slack, cell = state.q, state.slack, state.cell
    inside = np.where(cell, q, 0.0)
    n_cells = np.maximum(cell.sum(axis=(1, 2, 3)), 1)
    # The error is the sum of q slack over cells; one closer to 0 than needed would
    # spoil the equations.
    aim = _CENTRING * (inside * slack).sum(axis=(1, 2, 3))
    aim = np.maximum(aim, 0.5 * tol) / n_cells
    pull = np.where(cell, gradient - aim[:, None, None, None] / q, 0.0)
    inverse = _inverse_hessian(inside, slack)
    moved = np.einsum("tabyz,tabz->taby", inverse, pull)
    lacking = state.margins - _margins(inside)
    new = _solve_margins(inverse, state.margins > 0, lacking + _margins(moved))
    direction = np.where(cell, new[:, :n_a, None] + new[:, None, n_a:] - pull, 0.0)
    dq = np.einsum("tabyz,tabz->taby", inverse, direction)
    dslack = np.where(cell, aim[:, None, None, None] / q - slack - slack / q * dq, 0.0)
    step = np.minimum(_longest_step(q, dq), _longest_step(slack, dslack))
    state.q = q + step[:, None, None, None] * dq
    state.slack = slack + step[:, None, None, None] * dslack
    state.dual = state.dual + step[:, None, None] * (new - state.dual)


def _margins(cells: Floats) -> Floats:
    return np.concatenate([cells.sum(axis=2), cells.sum(axis=1)], axis=1)


def _inverse_hessian(inside: Floats, slack: Floats) -> Floats:
    """Inverse of diag((1 + slack) / q) - 1 / q(a, b) over z, for each (a, b)."""
    weight = inside / (1 + slack)
    rest = (weight * slack).sum(axis=3, keepdims=True)
    rest = np.where(rest > 0, rest, 1.0)
    inverse: Floats = weight[..., :, None] * (weight / rest)[..., None, :]
    diagonal = np.arange(inside.shape[3])
    inverse[..., diagonal, diagonal] += weight
    return inverse


def _solve_margins(inverse: Floats, present: NDArray[np.bool_], rhs: Floats) -> Floats:
    """Duals of the margins, from the inverse Hessian summed over a and over b."""
    n_tables, n_a, n_b, n_z = inverse.shape[:4]
    n_rows = n_a + n_b
    matrix = np.zeros((n_tables, n_rows, n_z, n_rows, n_z))
    a, b = np.arange(n_a), n_a + np.arange(n_b)
    matrix[:, a, :, a] = inverse.sum(axis=2).transpose(1, 0, 2, 3)
    matrix[:, b, :, b] = inverse.sum(axis=1).transpose(1, 0, 2, 3)
    matrix[:, :n_a, :, n_a:] = inverse.transpose(0, 1, 3, 2, 4)
    matrix[:, n_a:, :, :n_a] = inverse.transpose(0, 2, 3, 1, 4)
    size = n_rows * n_z
    flat = matrix.reshape(n_tables, size, size)
    diagonal = np.arange(size)
    scale = flat[:, diagonal, diagonal].copy()
    scale = np.sqrt(np.where(scale > 0, scale, 1.0))
    flat /= scale[:, :, None] * scale[:, None, :]
    flat[:, diagonal, diagonal] = 1.0  # also of margins without probability
    # u + c(z) and v - c(z) are the same for every c: hold the mean difference at 0.
    sign = np.repeat([1.0, -1.0], [n_a, n_b])[:, None] * present
    free = sign * scale.reshape(n_tables, n_rows, n_z)
    length = np.sqrt((free**2).sum(axis=1, keepdims=True))
    free /= np.where(length > 0, length, 1.0)
    for z in range(n_z):
        matrix[:, :, z, :, z] += free[:, :, None, z] * free[:, None, :, z]
    scaled = rhs.reshape(n_tables, size) / scale
    answer = np.linalg.solve(flat, scaled[..., None])[..., 0] / scale
    return np.where(present, answer.reshape(n_tables, n_rows, n_z), 0.0)


def _longest_step(x: Floats, change: Floats) -> Floats:
    """Share of the change after which every x is still positive."""
    falling = change < 0
    room = np.where(falling, -x / np.where(falling, change, 1.0), np.inf)
    return np.asarray(np.minimum(1.0, _TO_BOUNDARY * room.min(axis=(1, 2, 3))))
