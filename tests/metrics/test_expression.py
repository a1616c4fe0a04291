"""Correlations of expression: section by section, constant genes counted."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from neuromm.metrics import expression_correlation


def drawn(n_spots=40, n_genes=6, seed=0):
    rng = np.random.default_rng(seed)
    observed = rng.standard_normal((n_spots, n_genes))
    return observed + rng.standard_normal((n_spots, n_genes)), observed


def test_pcc_is_the_mean_over_genes_then_over_sections():
    predicted, observed = drawn()
    sections = np.repeat(["b", "a"], [10, 30])
    scores = expression_correlation(predicted, observed, sections)
    assert scores.sections == ("a", "b")
    expected = [
        [pearsonr(predicted[own, g], observed[own, g])[0] for g in range(6)]
        for own in (sections == "a", sections == "b")
    ]
    np.testing.assert_allclose(scores.by_gene, expected, atol=1e-12)
    assert scores.pcc == pytest.approx(np.mean(expected))
    errors = np.abs(predicted - observed)
    assert scores.mae == pytest.approx((errors[:10].mean() + errors[10:].mean()) / 2)
    square = errors**2
    assert scores.mse == pytest.approx((square[:10].mean() + square[10:].mean()) / 2)


def test_a_level_of_each_section_is_no_prediction_of_spots():
    """Pooled over sections, the correlation of these would be near 1."""
    rng = np.random.default_rng(0)
    sections = np.repeat([0, 1], 2000)
    level = 100.0 * sections[:, None]
    predicted, observed = (level + rng.standard_normal((4000, 3)) for _ in range(2))
    scores = expression_correlation(predicted, observed, sections)
    assert abs(scores.pcc) < 3 / np.sqrt(2000 * 2 * 3)


def test_a_gene_that_does_not_vary_is_counted_and_left_out():
    predicted, observed = drawn()
    observed[:, 2] = 0.1  # a sum of 0.1 over 40 spots is not 4 to the last bit
    predicted[:20, 4] = 7.0
    scores = expression_correlation(predicted, observed, [0] * 20 + [1] * 20)
    assert scores.n_constant == 3
    assert np.isnan(scores.by_gene).sum() == 3
    kept = [0, 1, 3, 5]
    alone = expression_correlation(predicted[:20, kept], observed[:20, kept], [0] * 20)
    np.testing.assert_allclose(scores.by_gene[0, kept], alone.by_gene[0])
    assert np.isfinite(scores.pcc)
    nothing = expression_correlation(np.ones((4, 2)), np.ones((4, 2)), [0] * 4)
    assert np.isnan(nothing.pcc)
    assert nothing.n_constant == 2


def test_genes_chosen_on_the_test_are_too_good():
    """Noise: the best five of 200 genes correlate, those chosen elsewhere do not."""
    rng = np.random.default_rng(0)
    train, test = (
        expression_correlation(*rng.standard_normal((2, 300, 200)), np.zeros(300))
        for _ in range(2)
    )
    se = 1 / np.sqrt(300 * 5)
    assert test.highly_predicted(5) > 5 * se
    assert abs(test.highly_predicted(5, chosen_on=train)) < 4 * se
    assert test.highly_predicted(1) == pytest.approx(test.by_gene.max())
    assert test.highly_predicted(999) == pytest.approx(test.pcc)
    with pytest.raises(ValueError, match="n_genes must be at least 1"):
        test.highly_predicted(0)


def test_a_perfect_and_an_opposite_prediction():
    _, observed = drawn()
    assert expression_correlation(observed, observed, [0] * 40).pcc == pytest.approx(1)
    scaled = expression_correlation(5 - 2 * observed, observed, [0] * 40)
    assert scaled.pcc == pytest.approx(-1)


def test_shapes_and_values_that_cannot_be_are_refused():
    predicted, observed = drawn()
    with pytest.raises(ValueError, match="one shape"):
        expression_correlation(predicted, observed[:, :5], [0] * 40)
    with pytest.raises(ValueError, match="a label for each spot"):
        expression_correlation(predicted, observed, [0] * 39)
    predicted[3, 3] = np.nan
    with pytest.raises(ValueError, match="nan or infinity"):
        expression_correlation(predicted, observed, [0] * 40)
