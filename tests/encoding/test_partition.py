"""Partitions of variance against planted spaces, himalaya and their own sums."""

import warnings
from itertools import permutations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.core import DataError, UsageError
from neuromm.encoding import r2_score
from neuromm.encoding.partition import (
    partition_models,
    product_measure,
    structured_partition,
    variance_partition,
)
from neuromm.kernels.second_moments import SecondMoments

NAMES = ("vision", "language", "audio", "motion", "low level", "semantics")


def planted_scores(covariance, weights, noise=1.0, names=NAMES):
    """R2 of all models of y = weights'x + noise, from the covariance of the spaces.

    Each space is one feature; R2(A) = c_A' C_AA^-1 c_A / var y with c = C weights.
    """
    covariance, weights = np.asarray(covariance), np.asarray(weights, dtype=float)
    with_y = covariance @ weights
    variance = weights @ with_y + noise**2
    used = names[: len(weights)]
    scores = {}
    for subset in partition_models(used):
        at = [used.index(name) for name in subset]
        solved = np.linalg.solve(covariance[np.ix_(at, at)], with_y[at])
        scores[subset] = [with_y[at] @ solved / variance]
    return scores


def value(parts, label):
    return parts.sel(part=label).item()


def random_scores(n_spaces, n_targets, seed=0):
    rng = np.random.default_rng(seed)
    return {
        subset: rng.uniform(-0.1, 1, n_targets)
        for subset in partition_models(NAMES[:n_spaces])
    }


# Product measure


def joint_model(seed=0, n_samples=200, n_targets=6, n_spaces=3):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n_samples, n_targets))
    predictions = 0.3 * y + 0.4 * rng.standard_normal((n_spaces, n_samples, n_targets))
    predictions[-1] -= 0.5 * predictions[0]  # spaces that disagree
    return y, predictions


def test_product_measure_is_that_of_himalaya():
    scoring = pytest.importorskip("himalaya.scoring")
    y, predictions = joint_model()
    y -= y.mean(0)
    shares = product_measure(SecondMoments.of(y, predictions))
    peer = scoring.r2_score_split(y, predictions)
    np.testing.assert_allclose(shares, peer, rtol=1e-10)
    np.testing.assert_allclose(shares.sum(0), r2_score(y, predictions.sum(0)))
    # And of responses that himalaya warns about.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        peer = scoring.r2_score_split(y + 0.7, predictions)
    shares = product_measure(SecondMoments.of(y + 0.7, predictions))
    np.testing.assert_allclose(shares, peer, rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), offset=st.floats(-50, 50), cut=st.integers(1, 199))
def test_shares_of_merged_folds_sum_to_the_joint_r2(seed, offset, cut):
    y, predictions = joint_model(seed)
    y += offset
    first, second = (slice(None, cut), slice(cut, None))
    moments = SecondMoments.of(y[first], predictions[:, first]).merge(
        SecondMoments.of(y[second], predictions[:, second])
    )
    joint = 1 - ((y - predictions.sum(0)) ** 2).sum(0) / (y**2).sum(0)
    np.testing.assert_allclose(moments.joint_r2(), joint, rtol=1e-9, atol=1e-12)
    shares = product_measure(moments)
    np.testing.assert_allclose(shares.sum(0), joint, rtol=1e-9, atol=1e-12)


def test_the_offset_of_the_means_as_one_more_space_completes_r2_score():
    y, predictions = joint_model()
    training_mean = 0.4
    offset = np.broadcast_to(training_mean - y.mean(0), y.shape)
    parts = np.concatenate([predictions, offset[None]])
    shares = product_measure(SecondMoments.of(y - y.mean(0), parts))
    expected = r2_score(y, training_mean + predictions.sum(0))
    np.testing.assert_allclose(shares.sum(0), expected, rtol=1e-10)


def test_shares_of_orthogonal_spaces_are_their_variances():
    rng = np.random.default_rng(0)
    signals = np.linalg.qr(rng.standard_normal((50, 3)))[0].T[:, :, None]
    gains = np.array([2.0, 1.0, 0.0])[:, None, None]
    y = (gains * signals).sum(0)
    shares = product_measure(SecondMoments.of(y, gains * signals))
    np.testing.assert_allclose(shares.ravel(), [0.8, 0.2, 0], atol=1e-12)


def test_a_space_that_only_adds_noise_has_a_negative_share():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((5000, 1))
    noise = 0.5 * rng.standard_normal((5000, 1))
    shares = product_measure(SecondMoments.of(y, np.stack([y, noise])))
    # -noise^2 / y^2 = -0.25, within three standard errors of a ratio of variances.
    np.testing.assert_allclose(shares[1], -0.25, atol=3 * 0.5 / np.sqrt(5000))


# Variance partitioning


def test_orthogonal_spaces_share_nothing():
    parts = variance_partition(planted_scores(np.eye(2), [2, 1]))
    assert value(parts, "vision") == pytest.approx(4 / 6)
    assert value(parts, "language") == pytest.approx(1 / 6)
    assert value(parts, "vision&language") == pytest.approx(0, abs=1e-12)


def test_correlated_spaces_share_what_either_can_predict():
    rho = 0.6
    parts = variance_partition(planted_scores([[1, rho], [rho, 1]], [1, 1]))
    # var y = 2 + 2 rho + 1; a space adds to the other what is left of it, 1 - rho^2.
    variance = 3 + 2 * rho
    unique = (1 - rho**2) / variance
    assert value(parts, "vision") == pytest.approx(unique)
    assert value(parts, "language") == pytest.approx(unique)
    shared = (2 + 2 * rho) / variance - 2 * unique
    assert value(parts, "vision&language") == pytest.approx(shared)


def test_a_suppressor_makes_the_shared_part_negative():
    # Language is uncorrelated with y but holds what contaminates vision.
    covariance = [[1, 0.7], [0.7, 1]]
    scores = planted_scores(covariance, [1, -0.7])
    assert scores["language",][0] == pytest.approx(0, abs=1e-12)
    parts = variance_partition(scores)
    gain = scores["vision", "language"][0] - scores["vision",][0]
    assert gain > 0.1
    assert value(parts, "vision&language") == pytest.approx(-gain)
    assert value(parts, "language") == pytest.approx(gain)


def test_a_planted_venn_diagram_of_three_spaces_is_recovered():
    # Disjoint signals, one a region; a space predicts the regions that it holds.
    regions = {
        ("vision",): 0.20,
        ("language",): 0.10,
        ("audio",): 0.05,
        ("vision", "language"): 0.15,
        ("vision", "audio"): 0.0,
        ("language", "audio"): 0.08,
        ("vision", "language", "audio"): 0.12,
    }
    scores = {
        subset: [sum(v for part, v in regions.items() if {*part} & {*subset})]
        for subset in regions
    }
    parts = variance_partition(scores)
    for part, planted in regions.items():
        assert value(parts, "&".join(part)) == pytest.approx(planted, abs=1e-12)


def test_least_squares_on_samples_gives_the_planted_parts():
    rng = np.random.default_rng(0)
    n_samples, rho = 40_000, 0.5
    shared = rng.standard_normal((n_samples, 1))
    own = rng.standard_normal((2, n_samples, 1))
    spaces = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own
    y = spaces.sum(0) + rng.standard_normal((n_samples, 1))
    x = dict(zip(NAMES, spaces, strict=False))
    half = n_samples // 2
    scores = {}
    for subset in partition_models(NAMES[:2]):
        features = np.concatenate([x[name] for name in subset], axis=1)
        fit = np.linalg.lstsq(features[:half], y[:half], rcond=None)[0]
        scores[subset] = r2_score(y[half:], features[half:] @ fit)
    parts = variance_partition(scores).sel(target=0)
    planted = variance_partition(planted_scores([[1, rho], [rho, 1]], [1, 1]))
    # R2 has a standard error below 1 / sqrt(n); a part is made of up to three.
    atol = 3 * np.sqrt(3) / np.sqrt(half)
    np.testing.assert_allclose(parts, planted.sel(target=0), atol=atol)


@pytest.mark.parametrize("n_spaces", [1, 2, 3, 4, 5, 6])
def test_parts_sum_to_every_model_and_to_the_full_one(n_spaces):
    scores = random_scores(n_spaces, 7)
    parts = variance_partition(scores)
    held = [set(str(label).split("&")) for label in parts["part"].values]
    for subset, score in scores.items():
        touched = [bool(part & set(subset)) for part in held]
        # A score is the sum of all parts that its spaces touch.
        np.testing.assert_allclose(parts.values[touched].sum(0), score, atol=1e-13)
    np.testing.assert_allclose(parts.sum("part"), scores[NAMES[:n_spaces]], atol=1e-13)
    np.testing.assert_array_equal(parts["n_spaces"], [len(p) for p in held])


def test_the_order_of_spaces_and_the_spelling_of_subsets_change_no_part():
    scores = random_scores(3, 5)
    expected = variance_partition(scores)
    by_set = {frozenset(label.split("&")): i for i, label in enumerate(LABELS3)}
    for order in permutations(NAMES[:3]):
        spelled = {
            "&".join(s): scores[tuple(n for n in NAMES if n in s)]
            for s in partition_models(order)
        }
        parts = variance_partition(spelled)
        rows = [by_set[frozenset(str(p).split("&"))] for p in parts["part"].values]
        np.testing.assert_allclose(parts, expected.values[rows], atol=1e-14)
    sets = variance_partition({frozenset(k): v for k, v in scores.items()})
    xr.testing.assert_identical(sets, expected)


LABELS3 = [
    "vision",
    "language",
    "audio",
    "vision&language",
    "vision&audio",
    "language&audio",
    "vision&language&audio",
]


def test_parts_and_targets_are_labelled():
    targets = {"target": ["a", "b"], "x": ("target", [1.0, 2.0]), "space": "vision"}
    scores = {
        subset: xr.DataArray(score, dims="target", coords=targets)
        for subset, score in random_scores(3, 2).items()
    }
    parts = variance_partition(scores)
    assert parts.dims == ("part", "target")
    assert list(parts["part"].values) == LABELS3
    assert list(parts["target"].values) == ["a", "b"]
    assert list(parts["x"].values) == [1.0, 2.0]
    assert list(parts.to_pandas().columns) == ["a", "b"]


def test_a_target_with_nan_in_any_model_is_nan_in_all_parts():
    scores = random_scores(3, 3)
    whole = variance_partition(scores)
    scores["audio",][1] = np.nan
    parts = variance_partition(scores)
    assert np.isnan(parts[:, 1]).all()
    np.testing.assert_array_equal(parts[:, [0, 2]], whole[:, [0, 2]])
    nested = structured_partition(["audio", "language", "vision"], scores)
    assert np.isnan(nested[:, 1]).all()
    assert np.isfinite(nested[:, [0, 2]]).all()


def test_all_missing_models_are_named_at_once():
    scores = random_scores(3, 2)
    del scores["audio",], scores["vision", "language"]
    with pytest.raises(UsageError, match="2 of 7 models is missing: ") as raised:
        variance_partition(scores)
    assert "vision&language" in str(raised.value)
    assert "audio" in str(raised.value)


def test_more_than_six_spaces_are_refused_with_their_number_of_models():
    with pytest.raises(UsageError, match="127 models"):
        partition_models("abcdefg"[i] for i in range(7))
    with pytest.raises(UsageError, match="structured_partition"):
        variance_partition({tuple("abcdefg"): [0.5]})


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": [0.1], ("a",): [0.2]}, "two scores are of the model of a"),
        ({("a", "a"): [0.1]}, "each once"),
        ({("a&b",): [0.1]}, "without '&'"),
        ({"a&": [0.1]}, "got ''"),
        ({(): [0.1]}, "no name"),
        ({}, "no name"),
    ],
)
def test_subsets_that_cannot_be_told_are_refused(scores, message):
    with pytest.raises(UsageError, match=message):
        variance_partition(scores)


def test_scores_of_other_targets_are_refused():
    scores = random_scores(2, 3)
    with pytest.raises(DataError, match=r"\(3,\).*those of language have \(2,\)"):
        variance_partition({**scores, ("language",): [0.1, 0.2]})
    with pytest.raises(DataError, match=r"those of vision have \(\)"):
        variance_partition({**scores, ("vision",): 0.1})
    labelled = {
        subset: xr.DataArray(score, dims="target", coords={"target": ["a", "b", "c"]})
        for subset, score in scores.items()
    }
    labelled["language",] = labelled["language",][::-1]
    with pytest.raises(DataError, match="scores of language are of other targets"):
        variance_partition(labelled)


# Nested models


def test_nested_parts_are_what_each_layer_adds():
    order = NAMES[:3]
    covariance = 0.4 + 0.6 * np.eye(3)
    scores = planted_scores(covariance, [1, 0, 2])
    parts = structured_partition(order, scores)
    assert list(parts["part"].values) == list(order)
    first, two, all_ = (scores[order[:k]][0] for k in (1, 2, 3))
    np.testing.assert_allclose(parts[:, 0], [first, two - first, all_ - two])
    # From behind, a layer without weight of its own adds nothing to the last one…
    behind = structured_partition(order[::-1], scores)
    np.testing.assert_allclose(behind.sum("part"), parts.sum("part"))
    # …but the sum of unique and shared parts in the order of nesting.
    venn = variance_partition(scores)
    with_first = [p for p in LABELS3 if "vision" in p]
    np.testing.assert_allclose(
        parts.sel(part="vision"), venn.sel(part=with_first).sum("part")
    )
    np.testing.assert_allclose(
        parts.sel(part="audio"), venn.sel(part="audio"), atol=1e-12
    )


def test_nested_partitions_need_only_their_own_models_and_any_number_of_spaces():
    layers = [f"layer{k}" for k in range(12)]
    scores = {tuple(layers[:k]): [k / 20] for k in range(1, 13)}
    parts = structured_partition(layers, scores)
    np.testing.assert_allclose(parts, 0.05, rtol=1e-12)
    del scores[tuple(layers[:3])]
    with pytest.raises(UsageError, match="missing: layer0&layer1&layer2"):
        structured_partition(layers, scores)
