"""The published half-fold protocol: its arithmetic, its choices, and its verdicts."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from neuromm.core import UsageError
from neuromm.encoding import both_alignments, winner_counts
from neuromm.encoding.group_comparisons import comparison_table
from neuromm.encoding.half_fold_comparisons import half_fold_sites
from neuromm.encoding.half_fold_protocol import (
    PROTOCOL_ALPHAS,
    half_fold_scores,
    half_folds,
    resampled_scores,
    sorted_resamples,
)
from neuromm.encoding.site_decision import joined_sites


def published(x, y, alphas, n_folds=5):
    """Validation and test r of every alpha, one solve at a time, (n_alphas, 2, v)."""
    n = len(x)
    scores = np.zeros((len(alphas), 2, y.shape[1]))
    for block in np.array_split(np.arange(n), n_folds):
        train = np.setdiff1d(np.arange(n), block)
        halves = block[: len(block) // 2], block[len(block) // 2 :]
        scaler = StandardScaler().fit(x[train])
        ones = np.ones((n, 1))
        z = np.hstack([scaler.transform(x), ones])
        for number, alpha in enumerate(alphas):
            gram = z[train].T @ z[train] + alpha * np.eye(z.shape[1])
            weights = np.linalg.solve(gram, z[train].T @ y[train])
            for half, rows in enumerate(halves):
                predicted = z[rows] @ weights
                for target in range(y.shape[1]):
                    r = np.corrcoef(predicted[:, target], y[rows, target])[0, 1]
                    scores[number, half, target] += r / n_folds
    return scores


def planted(n_samples=103, n_features=6, n_targets=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_samples, n_features)) * np.arange(1, n_features + 1) + 3
    y = x[:, :n_targets] + 4 * rng.standard_normal((n_samples, n_targets)) + 50
    return x, y


@pytest.mark.parametrize("n_features", [6, 150])
def test_scores_are_those_of_normal_equations_with_a_penalised_column_of_ones(
    n_features,
):
    x, y = planted(n_features=n_features)
    expected = published(x, y, PROTOCOL_ALPHAS)
    for number, alpha in enumerate(PROTOCOL_ALPHAS):
        one = half_fold_scores(x, y, alphas=[alpha])
        np.testing.assert_allclose(one.validation, expected[number, 0], atol=1e-9)
        np.testing.assert_allclose(one.test, expected[number, 1], atol=1e-9)
    best = expected[:, 0].argmax(axis=0)
    chosen = half_fold_scores(x, y)
    np.testing.assert_array_equal(chosen.alphas, PROTOCOL_ALPHAS[best])
    columns = np.arange(y.shape[1])
    np.testing.assert_allclose(chosen.test, expected[best, 1, columns], atol=1e-9)


@pytest.mark.parametrize("n_features", [6, 150])
def test_a_resample_is_fitted_as_its_rows_written_out(n_features):
    x, y = planted(n_features=n_features)
    rows = sorted_resamples(len(x), 1, 3)[0]
    resampled = half_fold_scores(x, y, rows=rows)
    written_out = half_fold_scores(x[rows], y[rows])
    np.testing.assert_allclose(resampled.test, written_out.test, atol=1e-9)
    np.testing.assert_allclose(resampled.validation, written_out.validation, atol=1e-9)


@pytest.mark.parametrize("n_features", [6, 150])
def test_responses_in_single_precision_give_the_same_scores(n_features):
    x, y = planted(n_features=n_features)
    rows = sorted_resamples(len(x), 1, 3)[0]
    double = half_fold_scores(x, y, rows=rows)
    single = half_fold_scores(x, y.astype(np.float32), rows=rows)
    # Responses around 50 lose two digits of seven to their offset.
    np.testing.assert_allclose(single.test, double.test, atol=2e-5)
    np.testing.assert_allclose(single.validation, double.validation, atol=2e-5)
    np.testing.assert_array_equal(single.alphas, double.alphas)


def test_features_that_are_copies_of_each_other_are_one_feature():
    x, y = planted(n_features=2, n_targets=2)
    # Twice the same column at half the penalty is that column at the whole one.
    twice = half_fold_scores(np.hstack([x, x]), y, alphas=[0.2])
    once = half_fold_scores(x, y, alphas=[0.1])
    np.testing.assert_allclose(twice.test, once.test, atol=1e-10)
    np.testing.assert_allclose(twice.validation, once.validation, atol=1e-10)


def test_resamples_that_hold_every_event_once_give_the_scores_of_all():
    x, y = planted()
    same = np.tile(np.arange(len(x)), (3, 1))
    drawn = resampled_scores(x, y, same)
    plain = half_fold_scores(x, y)
    for row in range(3):
        np.testing.assert_allclose(drawn.test[row], plain.test, atol=1e-6)
        np.testing.assert_allclose(drawn.validation[row], plain.validation, atol=1e-6)


def test_test_halves_choose_nothing():
    # So noisy that test halves would choose otherwise.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 8))
    y = x[:, :3] + 6 * rng.standard_normal((300, 3))
    alphas = PROTOCOL_ALPHAS
    expected = published(x, y, alphas)
    by_validation = expected[:, 0].argmax(axis=0)
    by_test = expected[:, 1].argmax(axis=0)
    assert (by_validation != by_test).any()
    found = half_fold_scores(x, y).alphas
    np.testing.assert_array_equal(found, alphas[by_validation])


def test_halves_are_contiguous_and_apart():
    for train, validation, test in half_folds(103):
        assert validation[-1] + 1 == test[0]
        held = np.concatenate([validation, test])
        np.testing.assert_array_equal(np.diff(held), 1)
        np.testing.assert_array_equal(
            np.sort(np.concatenate([train, held])), np.arange(103)
        )


def test_units_and_offsets_of_responses_and_features_do_not_matter():
    x, y = planted()
    plain = half_fold_scores(x, y)
    other = half_fold_scores(x * np.arange(1, 7) - 8, 1e-6 * y + 3e-5)
    np.testing.assert_allclose(other.test, plain.test, atol=1e-8)


def test_a_target_that_is_constant_or_not_whole_has_no_score():
    x, y = planted()
    y[:, 0], y[5, 1] = 3.0, np.nan
    scores = half_fold_scores(x, y)
    assert np.isnan(scores.test[:2]).all()
    assert np.isfinite(scores.test[2:]).all()


def test_a_feature_that_is_constant_in_training_weighs_nothing():
    x, y = planted()
    with_constant = np.hstack([x, np.full((len(x), 1), 1e6)])
    np.testing.assert_allclose(
        half_fold_scores(with_constant, y).test, half_fold_scores(x, y).test, atol=1e-9
    )


def test_halves_of_two_events_are_refused():
    with pytest.raises(UsageError, match="half a fold must have 3 samples"):
        half_folds(25)


N_BINS = 14
KINDS = ("vision", "language", "additive", "mixed", "joint alone", "none")


@pytest.fixture(scope="module")
def electrodes():
    """Electrodes of six kinds; noise is white, so that bins are replicates here."""
    rng = np.random.default_rng(1)
    n = 300
    vision, language = rng.standard_normal((2, n, 4))
    product = vision * language
    features = {
        "vision": vision,
        "language": language,
        "joint": np.hstack([vision, language, product]),
        "twin": np.tanh(np.hstack([vision, language]) @ rng.standard_normal((8, 12))),
    }
    signal = np.stack(
        [
            vision[:, 0],
            language[:, 0],
            vision[:, 0] + language[:, 0],
            vision[:, 1] + product[:, 1],
            product[:, 0],
            np.zeros(n),
        ],
        axis=1,
    )
    noise = rng.standard_normal((n, len(KINDS), N_BINS))
    return features, 0.8 * signal[:, :, None] + noise


@pytest.fixture(scope="module")
def mapped(electrodes):
    features, responses = electrodes
    return half_fold_sites(
        features,
        responses,
        times=np.arange(N_BINS) / 10,
        controls=("twin",),
        n_resamples=100,
        rng=0,
    )


def test_the_planted_site_is_found_and_nothing_simpler_is(mapped):
    table = mapped.table.set_index(np.array(KINDS))
    assert list(table.index[table["is_site"]]) == ["mixed"]
    assert table.loc["mixed", "gain"] > 0.1
    assert table.loc["vision", "score_unimodal"] == table.loc["vision", "score_vision"]
    assert table.loc["additive", "competitor"] == "concatenation"


def test_a_win_without_a_rival_is_counted_apart(mapped):
    table = mapped.table.set_index(np.array(KINDS))
    assert list(table.index[table["by_default"]]) == ["joint alone"]
    alone = table.loc["joint alone"]
    assert alone["default_unimodal"] == alone["default_concatenation"] == "joint"
    assert np.isnan(alone["q"])
    assert table.loc["none", "n_bins_joint"] < 10
    assert table.loc["none", "default_unimodal"] == "n/a"
    counts = winner_counts(comparison_table(mapped).assign(subject="1"), by=None)
    unimodal = counts.set_index(["first", "second"]).loc[("joint", "unimodal")]
    assert unimodal["n_default_first"] == 1
    assert unimodal["n_first"] == 2  # mixed and additive beat either alone


def test_sites_of_parts_are_those_of_all(electrodes, mapped):
    features, responses = electrodes
    parts = [
        half_fold_sites(
            features,
            responses[:, columns],
            times=np.arange(N_BINS) / 10,
            controls=("twin",),
            n_resamples=100,
            rng=0,
        )
        for columns in (slice(0, 3), slice(3, 6))
    ]
    joined = joined_sites(parts).table
    whole = mapped.table
    columns = ["gain", "p", "q", "q_unimodal", "is_site", "by_default", "score_joint"]
    np.testing.assert_allclose(
        joined[columns].astype(float), whole[columns].astype(float), atol=1e-6
    )


def test_both_alignments_joins_the_protocols_tables(mapped):
    both = both_alignments(mapped.table, mapped.table)
    np.testing.assert_array_equal(both["is_site"], mapped.is_site)
    assert "by_default" in both


def test_bins_carry_time_penalty_and_interval(mapped):
    bins = mapped.evidence.sel(model="joint")
    np.testing.assert_allclose(bins["time"], np.arange(N_BINS) / 10)
    assert set(np.unique(bins["alpha"])) <= set(PROTOCOL_ALPHAS)
    assert (bins["test_low"] <= bins["test_mean"]).all()
    assert (bins["test_mean"] <= bins["test_high"]).all()


def test_too_few_bins_and_reserved_names_are_refused(electrodes):
    features, responses = electrodes
    with pytest.raises(UsageError, match="10 time bins of a site or more"):
        half_fold_sites(features, responses[:, :, :4], times=np.arange(4))
    renamed = {**features, "unimodal": features["twin"]}
    with pytest.raises(UsageError, match="cannot be called unimodal"):
        half_fold_sites(renamed, responses, controls=("unimodal",))


def test_overlapping_bins_taken_for_replicates_reject_far_too_often():
    """The published p: two models that are equally good, windows that overlap."""
    from neuromm.encoding.half_fold_comparisons import _BinDraws

    rng = np.random.default_rng(0)
    draws = _BinDraws(10, 200, 0, 0.95)
    kernel = np.ones(8) / 8  # 200 ms every 25 ms
    rejected = [
        min(p, 1 - p) < 0.025
        for p in (
            draws.of_mean(np.convolve(rng.standard_normal(168), kernel, "valid"))[3]
            for _ in range(300)
        )
    ]
    # 48 % in the long run; three standard errors are 9 %.
    assert 0.39 < np.mean(rejected) < 0.57
