"""Correlations of expression: section by section, constant genes counted."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from neuromm.core import UsageError
from neuromm.metrics import (
    ExpressionScores,
    bootstrap_interval,
    expression_correlation,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "expression_metrics.md"


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


def test_the_table_has_the_mean_of_each_gene_and_where_it_was_constant():
    predicted, observed = drawn()
    observed[:, 2] = 0.1
    predicted[:20, 4] = 7.0
    genes = ["ERBB2", "GNAS", "FASN", "ACTB", "MUC1", "CD74"]
    scores = expression_correlation(predicted, observed, [0] * 20 + [1] * 20)
    table = scores.table(genes)
    assert table.index.tolist() == genes
    assert table["n_sections"].tolist() == [2, 2, 0, 2, 1, 2]
    assert (table["n_sections"] + table["n_constant"] == 2).all()
    assert table["n_constant"].sum() == scores.n_constant
    assert np.isnan(table.loc["FASN", "pcc"])
    second = pearsonr(predicted[20:, 4], observed[20:, 4])[0]
    assert table.loc["MUC1", "pcc"] == pytest.approx(second)
    halves = slice(0, 20), slice(20, 40)
    both = [pearsonr(predicted[half, 0], observed[half, 0])[0] for half in halves]
    assert table.loc["ERBB2", "pcc"] == pytest.approx(np.mean(both))
    with pytest.raises(UsageError, match=r"name the 6 columns .* got 5 names"):
        scores.table(genes[:5])


def test_pcc_is_the_mean_of_the_sections_that_have_one():
    predicted, observed = drawn()
    predicted[:10] = 1.0
    sections = np.repeat(["A1", "A2", "B1", "B2"], 10)
    scores = expression_correlation(predicted, observed, sections)
    assert np.isnan(scores.by_section[0])
    for number, name in enumerate(scores.sections[1:], start=1):
        own = sections == name
        alone = expression_correlation(predicted[own], observed[own], sections[own])
        assert scores.by_section[number] == pytest.approx(alone.pcc)
    assert scores.pcc == pytest.approx(scores.by_section[1:].mean())


def scores_of(by_section, sections=None):
    """Scores of one gene."""
    values = np.array(by_section, dtype=float)
    names = tuple(range(len(values)) if sections is None else sections)
    return ExpressionScores(names, values[:, None], float(values.mean()), 0.0, 0.0, 0)


def test_an_interval_of_patients_draws_patients_whole():
    """Sections that repeat their patient tell nothing new about other patients."""
    level = np.random.default_rng(0).normal(0.3, 0.1, 8)
    alone = bootstrap_interval(level)
    repeated = scores_of(np.repeat(level, 6))
    patients = np.repeat(list("ABCDEFGH"), 6)
    assert repeated.interval(patients) == pytest.approx(alone)
    pretended = repeated.interval(range(48))
    assert np.diff(pretended) < 0.6 * np.diff(alone)
    narrower = repeated.interval(patients, level=0.5)
    assert alone[0] < narrower[0] < narrower[1] < alone[1]
    assert np.isnan(repeated.interval(["A"] * 48)).all()


def test_an_interval_is_around_the_mean_over_patients_not_over_sections():
    """As where folds are patients: six sections of one count no more than three."""
    level = np.repeat([0.1, 0.2, 0.3, 0.4], [6, 6, 3, 3])
    patients = np.repeat(list("ABCD"), [6, 6, 3, 3])
    low, high = scores_of(level).interval(patients, level=1e-6, n_resamples=20_000)
    standard_error = np.std([0.1, 0.2, 0.3, 0.4]) / np.sqrt(4)
    assert (low + high) / 2 == pytest.approx(0.25, abs=0.3 * standard_error)
    assert abs(level.mean() - 0.25) > 0.5 * standard_error


def test_patients_are_given_by_section_or_in_the_order_of_sections():
    sections = ["A1", "A2", "B1", "C1"]
    scores = scores_of([0.1, 0.3, 0.2, 0.5], sections)
    patients = {"C1": "C", "B1": "B", "A2": "A", "A1": "A", "D1": "D"}
    assert scores.interval(patients) == scores.interval(["A", "A", "B", "C"])
    assert scores.interval(patients) != scores.interval(["C", "B", "A", "A"])
    with pytest.raises(UsageError, match="a patient for each section: 'B1' has none"):
        scores.interval({"A1": "A", "A2": "A", "C1": "C"})
    with pytest.raises(UsageError, match="one group a value, got 2 for 4"):
        scores.interval(["A", "B"])


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


def test_the_page_about_scores_shows_what_its_script_prints(capsys):
    script, shown = (
        "".join(re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
        for kind in ("python", "text")
    )
    exec(compile(script, PAGE.name, "exec"), {})
    *printed, over_patients = capsys.readouterr().out.splitlines()
    number = r"-?\d\.\d+"
    assert [re.sub(number, "", line) for line in printed] == [
        re.sub(number, "", line) for line in shown.splitlines()
    ]
    found, expected = (
        np.array(re.findall(number, text), dtype=float)
        for text in ("\n".join(printed), shown)
    )
    np.testing.assert_allclose(found, expected, atol=0.0015)
    # A section a patient: the mean over patients is PCC(A).
    assert float(over_patients) == pytest.approx(found[0], abs=0.0005)
