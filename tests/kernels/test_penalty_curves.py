"""A few penalties stand for a grid of them, to the tolerance that was asked for."""

import numpy as np
import pytest

from neuromm.kernels.penalty_curves import every_eigenvalue, spanning_penalties


def shares(alphas, eigenvalues):
    return alphas[:, None] / (eigenvalues + alphas[:, None])


@pytest.mark.parametrize("n_alphas", [20, 50, 200])
@pytest.mark.parametrize("tolerance", [5e-6, 1e-10])
def test_mixtures_of_a_few_curves_are_the_others(n_alphas, tolerance):
    alphas = np.geomspace(1e-1, 1e6, n_alphas)
    eigenvalues = np.geomspace(3e3, 1e-1, 500)
    found = spanning_penalties(alphas, eigenvalues, tolerance)
    mix = np.eye(n_alphas) if found.mix is None else found.mix
    exact = shares(alphas, eigenvalues)
    error = mix @ exact[found.pivots] - exact
    relative = np.linalg.norm(error, axis=1) / np.linalg.norm(exact, axis=1)
    # A pivot is refused at the tolerance; a few of them add up in a mixture.
    assert relative.max() < 10 * tolerance
    if n_alphas == 200:
        assert len(found.pivots) < 40


def test_any_eigenvalues_are_spanned_and_so_is_a_constant():
    alphas = np.geomspace(1e-1, 1e6, 200)
    found = spanning_penalties(alphas, every_eigenvalue(alphas, 2e3), 1e-8)
    for eigenvalues in (np.zeros(1), np.geomspace(1e-9, 2e3, 999), np.full(3, 77.7)):
        exact = shares(alphas, eigenvalues)
        error = found.mix @ exact[found.pivots] - exact
        norm = np.linalg.norm(exact, axis=1)
        assert (np.linalg.norm(error, axis=1)[norm > 1e-2] < 1e-6).all()
    np.testing.assert_allclose(found.mix.sum(axis=1), 1, atol=1e-6)


def test_a_grid_that_no_few_of_it_span_is_left_whole():
    alphas = np.geomspace(1e-3, 1e9, 8)  # farther apart than curves reach
    found = spanning_penalties(alphas, np.geomspace(1e6, 1e-2, 50), 1e-6)
    assert found.mix is None
    assert found.pivots.tolist() == list(range(8))
    zero = spanning_penalties(np.array([0.0, *alphas]), np.ones(3), 1e-2)
    assert zero.mix is None  # nothing of a mode is left at 0: there is no curve
