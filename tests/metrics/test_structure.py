"""Structure of predicted expression: Moran's I, pairs of genes, patterns in space."""

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix

from neuromm.metrics import expression_correlation, expression_structure, morans_i
from neuromm.prepare.expression import neighbours


def array_of(kind, n_rows=8, n_columns=6):
    row, column = (part.ravel() for part in np.indices((n_rows, n_columns)))
    if kind == "visium":
        column = 2 * column + row % 2
    return row, column, neighbours(row, column, kind)


def rook(row, column):
    steps = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    return csr_array((steps == 1).astype(float))


def test_a_checkerboard_is_minus_one_on_sides():
    row, column, _ = array_of("st")
    board = 3.0 + 2.0 * ((row + column) % 2)[:, None]
    np.testing.assert_allclose(morans_i(board, rook(row, column)), [-1], atol=1e-12)


@pytest.mark.parametrize("kind", ["st", "visium"])
def test_moran_is_the_double_sum_and_that_of_scanpy(kind):
    import scanpy

    touching = array_of(kind)[2]
    values = np.random.default_rng(0).standard_normal((48, 4)) + 5
    dense, found = touching.toarray(), morans_i(values, touching)
    for gene, value in enumerate(values.T):
        z = value - value.mean()
        pairs = sum(
            dense[i, j] * z[i] * z[j] for i in range(48) for j in range(48) if i != j
        )
        assert found[gene] == pytest.approx(48 / dense.sum() * pairs / (z @ z))
    peer = scanpy.metrics.morans_i(csr_matrix(touching), values.T.copy())
    np.testing.assert_allclose(found, peer, rtol=1e-6)
    np.testing.assert_allclose(morans_i(values, dense), found)


def test_structure_survives_scale_and_not_spots_shuffled_gene_by_gene():
    touching = array_of("st", 20, 20)[2]
    rng = np.random.default_rng(0)
    shared = touching @ rng.standard_normal((400, 3))
    weights = rng.standard_normal((3, 30))
    noise = rng.uniform(0.1, 20, 30) * rng.standard_normal((400, 30))
    observed = shared @ weights + noise
    same = expression_structure(2 * observed + 1, observed, touching)
    assert same.gene == pytest.approx(1)
    assert same.spatial == pytest.approx(1)
    broken = np.column_stack([rng.permutation(gene) for gene in observed.T])
    lost = expression_structure(broken, observed, touching)
    assert abs(lost.gene) < 3 / np.sqrt(30 * 29 / 2)
    assert abs(lost.spatial) < 3 / np.sqrt(30)
    # All genes of a spot together: pairs stay, the pattern in space goes.
    moved = expression_structure(observed[rng.permutation(400)], observed, touching)
    assert moved.gene == pytest.approx(1)
    assert np.abs(moved.predicted_moran).mean() < moved.observed_moran.mean() / 2


def test_the_mean_predicts_spots_best_and_keeps_structure_worst():
    """Draws around the mean of a spot err more, and are as rough as measured values."""
    touching = array_of("st", 20, 20)[2]
    rng = np.random.default_rng(0)
    mean = touching @ rng.standard_normal((400, 3)) @ rng.standard_normal((3, 40))
    sd = mean.std(axis=0) * rng.uniform(0.3, 3, 40)
    observed, drawn = (mean + sd * rng.standard_normal((400, 40)) for _ in range(2))
    spots = [expression_correlation(p, observed, [0] * 400).pcc for p in (mean, drawn)]
    assert spots[0] > spots[1] + 0.1
    smooth, rough = (expression_structure(p, observed, touching) for p in (mean, drawn))
    assert (smooth.predicted_moran > smooth.observed_moran).all()
    assert abs((rough.predicted_moran - rough.observed_moran).mean()) < 0.01
    assert smooth.gene < rough.gene - 0.05
    assert smooth.spatial < rough.spatial - 0.3


def test_morans_i_of_shuffled_spots_is_minus_one_over_the_others_on_average():
    touching = array_of("visium")[2]
    rng = np.random.default_rng(0)
    value = rng.standard_normal(48)
    shuffled = np.column_stack([rng.permutation(value) for _ in range(4000)])
    found = morans_i(shuffled, touching)
    three_standard_errors = 3 * found.std() / np.sqrt(4000)
    assert abs(found.mean() + 1 / 47) < three_standard_errors


def test_genes_that_do_not_vary_are_counted_and_left_out():
    touching = array_of("st")[2]
    rng = np.random.default_rng(0)
    predicted, observed = rng.standard_normal((2, 48, 6))
    whole = expression_structure(predicted[:, 2:], observed[:, 2:], touching)
    predicted[:, 0], observed[:, 1] = 0.1, 0.1
    scores = expression_structure(predicted, observed, touching)
    assert scores.n_constant == 2
    assert scores.gene == pytest.approx(whole.gene)
    assert scores.spatial == pytest.approx(whole.spatial)
    few = expression_structure(predicted[:, :4], observed[:, :4], touching)
    assert np.isnan([few.gene, few.spatial]).all()


def test_what_cannot_be_judged_is_said():
    touching = array_of("st")[2]
    values = np.random.default_rng(0).standard_normal((48, 3))
    with pytest.raises(ValueError, match="no spots touch"):
        morans_i(values, csr_array((48, 48)))
    with pytest.raises(ValueError, match="one shape"):
        expression_structure(values[:, :2], values, touching)
    with pytest.raises(ValueError, match="n_spots, n_spots"):
        morans_i(values[:40], touching)
    values[0, 0] = np.nan
    with pytest.raises(ValueError, match="nan or infinity"):
        morans_i(values, touching)
