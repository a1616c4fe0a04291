"""integration_sites: what is planted is found, and nothing simpler passes for it."""

import numpy as np
import pytest
from scipy.stats import kstest, t
from sklearn.linear_model import Ridge

from neuromm.core import UsageError
from neuromm.encoding import integration_sites
from neuromm.encoding.site_blocks import event_block
from neuromm.encoding.site_controls import linear_part
from neuromm.encoding.site_decision import joined_sites
from neuromm.encoding.site_evidence import site_evidence
from neuromm.encoding.training_influence import block_labels, training_influence
from neuromm.kernels.block_bootstrap import (
    block_counts,
    correlation_length,
    resampled_correlations,
)
from neuromm.simulate import make_integration_dataset


@pytest.fixture(scope="module")
def planted():
    return make_integration_dataset(2000, 50, r_max=(0.2, 0.5), rng=0)


def spaces(data):
    return {name: space.to_numpy() for name, space in data.features.items()}


def found(data, features, **settings):
    return integration_sites(
        features,
        data.responses.to_numpy(),
        groups=data.responses["run"].to_numpy(),
        n_resamples=500,
        rng=1,
        **settings,
    )


def test_targets_driven_by_products_are_sites_and_no_others(planted):
    table = found(planted, spaces(planted)).table
    kind = planted.truth["kind"].to_numpy()
    assert table["is_site"][kind == "interactive"].all()
    assert not table["is_site"][kind != "interactive"].any()
    assert list(table.columns) == [
        "target", "score_vision", "score_language", "score_joint", "score_linear",
        "score_concatenation", "score_banded", "gain", "ci_low", "ci_high",
        "competitor", "p", "q", "is_site",
    ]  # fmt: skip
    linear = table[["score_concatenation", "score_banded"]].max(axis=1)
    np.testing.assert_array_equal(table["score_linear"], linear)
    others = table[["score_vision", "score_language", "score_linear"]].max(axis=1)
    np.testing.assert_allclose(table["gain"], table["score_joint"] - others)
    inside = (table["ci_low"] <= table["gain"]) & (table["gain"] <= table["ci_high"])
    assert inside.mean() > 0.95


@pytest.mark.parametrize("disguise", ["rotation", "rotation and noise"])
def test_a_rotated_concatenation_is_no_multimodal_space(planted, disguise):
    features = spaces(planted)
    joined = np.concatenate([features["vision"], features["language"]], axis=1)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((joined.shape[1],) * 2))[0]
    features["joint"] = joined @ rotation
    if "noise" in disguise:
        noise = rng.standard_normal((len(joined), 20))
        features["joint"] = np.concatenate([features["joint"], noise], axis=1)
    assert not found(planted, features).is_site.any()


def test_labelled_responses_give_what_arrays_give(planted):
    labelled = integration_sites(
        planted.features, planted.responses, n_resamples=500, rng=1
    )
    plain = found(planted, spaces(planted))
    np.testing.assert_allclose(labelled.table["p"], plain.table["p"])
    assert list(labelled.table["kind"]) == list(planted.truth["kind"])
    assert labelled.attrs["block"] == 10
    assert labelled.attrs["cv"] == "leave one run out, 4 folds"


def test_a_target_that_cannot_be_scored_is_no_site_and_leaves_the_others(planted):
    y = planted.responses.to_numpy().copy()
    y[:, 3] = 1.0
    y[5, 7] = np.nan
    groups = planted.responses["run"].to_numpy()
    sites = integration_sites(spaces(planted), y, groups=groups, n_resamples=500, rng=1)
    table = sites.table
    assert table.loc[[3, 7], ["gain", "p", "q", "score_joint"]].isna().all(axis=None)
    assert not table.loc[[3, 7], "is_site"].any()
    rest = table.index.difference([3, 7])
    clean = found(planted, spaces(planted)).table
    np.testing.assert_allclose(table["p"][rest], clean["p"][rest])


def test_the_best_candidate_of_a_space_is_taken_by_inner_scores(planted):
    features = spaces(planted)
    noise = np.random.default_rng(3).standard_normal(features["joint"].shape)
    several = features | {"joint": {"layer 1": noise, "layer 2": features["joint"]}}
    one, two = found(planted, features).table, found(planted, several).table
    kind = planted.truth["kind"].to_numpy()
    driven = kind == "interactive"
    np.testing.assert_allclose(two["score_joint"][driven], one["score_joint"][driven])


@pytest.mark.parametrize("over_time", ["mean", "max", "cluster"])
def test_bins_of_one_contact_are_one_site(over_time):
    data = make_integration_dataset(
        1200, 60, r_max=0.4, fractions={"none": 0.5, "interactive": 0.5}, rng=2
    )
    y = data.responses.to_numpy()
    # Six contacts of ten bins: the last three hold an effect in bins 4 to 6.
    bins = np.random.default_rng(0).standard_normal((len(y), 6, 10))
    bins[:, 3:, 4:7] = y[:, -9:].reshape(len(y), 3, 3)
    sites = integration_sites(
        spaces(data),
        bins,
        times=np.linspace(-0.2, 0.7, 10),
        groups=data.responses["run"].to_numpy(),
        n_resamples=500,
        over_time=over_time,
        rng=0,
    )
    assert len(sites.table) == 6
    assert list(sites.is_site) == [False] * 3 + [True] * 3


def test_resampled_scores_are_those_of_the_resampled_events():
    rng = np.random.default_rng(0)
    y, predictions = rng.standard_normal((40, 3)), rng.standard_normal((2, 40, 3))
    groups = [np.arange(25), np.arange(25, 40)]
    counts = block_counts(groups, 40, 6, 20, rng)
    np.testing.assert_array_equal(counts[:, :25].sum(axis=1), 30)
    np.testing.assert_array_equal(counts[:, 25:].sum(axis=1), 18)
    found = resampled_correlations(y, predictions, counts)
    for draw, count in enumerate(counts.astype(int)):
        rows = np.repeat(np.arange(40), count)
        for model in range(2):
            expected = [
                np.corrcoef(y[rows, t], predictions[model, rows, t])[0, 1]
                for t in range(3)
            ]
            np.testing.assert_allclose(found[model, draw], expected, atol=1e-12)


def test_every_event_is_drawn_equally_often_and_blocks_stay_together():
    counts = block_counts([np.arange(30)], 30, 5, 4000, np.random.default_rng(0))
    # A count of blocks: mean 1, standard error below 1 / sqrt(4000).
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=5 / np.sqrt(4000))
    together = np.corrcoef(counts[:, 10], counts[:, 11])[0, 1]
    assert together > 0.7  # four of five blocks that hold one hold its neighbour


def test_the_correlation_length_follows_the_noise():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((4000, 20))
    slow = np.apply_along_axis(
        lambda one: np.convolve(one, np.ones(20) / 20, "same"), 0, white
    )
    groups = [np.arange(2000), np.arange(2000, 4000)]
    assert correlation_length(white, groups) == 1
    # The mean of 20 samples forgets after 20.
    assert 15 <= correlation_length(slow, groups) <= 25


def test_p_of_two_equal_models_is_uniform_and_intervals_cover():
    rng = np.random.default_rng(0)
    n_events, n_targets, true = 600, 1500, 0.3
    signal = rng.standard_normal((n_events, n_targets))
    y = true * signal + np.sqrt(1 - true**2) * rng.standard_normal(signal.shape)
    # Two models that see the signal under independent noise of equal size.
    models = signal + rng.standard_normal((2, *signal.shape))
    events = [np.arange(n_events)]
    counts = block_counts(events, n_events, 10, 1000, rng)
    columns = np.arange(n_targets)[:, None]
    blocks, of_run = block_labels(events, n_events, 10)
    evidence = site_evidence(
        y,
        models,
        counts,
        columns,
        "mean",
        0.95,
        folds=events,
        # Nothing was trained.
        influence=np.zeros((2, len(of_run), n_targets)),
        blocks=blocks,
        of_run=of_run,
    )
    assert kstest(evidence.p[0], "uniform").pvalue > 0.001
    covered = (evidence.interval[0] <= 0) & (evidence.interval[1] >= 0)
    assert 0.93 <= covered.mean() <= 0.97


def test_arguments_that_make_no_map_are_refused(planted):
    features = spaces(planted)
    with pytest.raises(UsageError, match="no space joint"):
        found(planted, {"vision": features["vision"], "language": features["language"]})
    with pytest.raises(UsageError, match="two or more spaces"):
        found(planted, features, unimodal=("vision",))
    with pytest.raises(UsageError, match="one row an event"):
        found(planted, features | {"joint": features["joint"][:-1]})
    with pytest.raises(UsageError, match="missing or infinite"):
        found(planted, features | {"joint": features["joint"] * np.nan})
    with pytest.raises(UsageError, match="over_time"):
        found(planted, features, over_time="median")


def test_a_control_as_good_as_the_multimodal_space_leaves_no_site(planted):
    features = spaces(planted)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((features["joint"].shape[1],) * 2))[0]
    features["twin"] = features["joint"] @ rotation
    features["permuted"] = rng.permutation(features["joint"])
    assert not found(planted, features, controls=("twin",)).is_site.any()
    weak = found(planted, features, controls=("permuted",))
    without = found(planted, spaces(planted))
    np.testing.assert_array_equal(weak.is_site, without.is_site)
    assert list(weak.evidence["comparison"].to_numpy()) == [
        "vision", "language", "permuted", "concatenation", "banded", "chance",
    ]  # fmt: skip
    np.testing.assert_allclose(
        weak.table["score_linear"], without.table["score_linear"], rtol=1e-9
    )


def test_parts_that_are_joined_are_judged_as_one(planted):
    settings = {"n_resamples": 500, "rng": 1, "block": event_block(planted.responses)}
    whole = integration_sites(planted.features, planted.responses, **settings)
    parts = [
        integration_sites(planted.features, planted.responses[:, part], **settings)
        for part in (slice(0, 13), slice(13, 45), slice(45, None))
    ]
    joined = joined_sites(parts)
    assert joined.attrs == whole.attrs
    np.testing.assert_array_equal(joined.is_site, whole.is_site)
    for name in ("gain", "p", "q"):
        np.testing.assert_allclose(
            joined.table[name], whole.table[name], rtol=1e-6, atol=1e-12
        )
    assert (parts[0].table["q"] != joined.table["q"][:13]).any()
    other = integration_sites(
        planted.features, planted.responses[:, :5], **settings | {"rng": 2}
    )
    with pytest.raises(UsageError, match="different settings, seeds"):
        joined_sites([parts[0], other])


def test_the_block_is_that_of_the_targets_that_can_be_scored(planted):
    responses = planted.responses.copy(deep=True)
    responses[4, :3] = np.nan
    assert event_block(responses) == event_block(responses[:, 3:])
    sites = integration_sites(planted.features, responses, n_resamples=100, rng=1)
    assert sites.attrs["block"] == event_block(responses)


@pytest.mark.parametrize("controls", [("joint",), ("vision",), ("noise",), "noise"])
def test_controls_that_are_none_are_refused(planted, controls):
    with pytest.raises(UsageError, match=r"controls must name|no space"):
        found(planted, spaces(planted), controls=controls)


@pytest.mark.parametrize("n_features", [5, 60])
def test_influence_of_training_is_the_derivative_by_the_weight_of_an_event(n_features):
    rng = np.random.default_rng(0)
    x, other = (
        rng.standard_normal((40, n_features)),
        rng.standard_normal((20, n_features)),
    )
    y, alpha = rng.standard_normal((40, 1)), 3.0
    gradient = rng.standard_normal((20, 1))
    gradient -= gradient.mean(axis=0)

    def score(weights):
        model = Ridge(alpha=alpha).fit(x, y, sample_weight=weights)
        return gradient[:, 0] @ model.predict(other).ravel()

    residual = y - Ridge(alpha=alpha).fit(x, y).predict(x).reshape(-1, 1)
    found = training_influence(x, other, residual, gradient, np.array([alpha]))
    step = 1e-5
    for event in (0, 7, 39):
        more = np.ones(40)
        more[event] += step
        less = np.ones(40)
        less[event] -= step
        slope = (score(more) - score(less)) / (2 * step)
        np.testing.assert_allclose(found[event, 0], slope, rtol=1e-6)


def test_the_linear_part_of_a_joint_space_is_made_and_competes():
    rng = np.random.default_rng(3)
    n, p = 1200, 6
    vision, language = rng.standard_normal((2, n, p))
    product = vision * language
    linear = (vision + language) @ rng.standard_normal((p, 3))
    joint = np.hstack([product, linear])
    signal = product @ rng.standard_normal((p, 2))
    signal = np.hstack([signal / signal.std(axis=0), linear / linear.std(axis=0)])
    responses = signal + 1.5 * rng.standard_normal(signal.shape)
    sites = integration_sites(
        {"vision": vision, "language": language, "joint": joint},
        responses,
        groups=np.repeat(np.arange(4), n // 4),
        controls=("linear-part",),
        n_resamples=200,
        rng=0,
    )
    scores = sites.table
    # What is linear in both is in the linear part, and what is a product is not.
    assert sites.is_site.tolist() == [True, True, False, False, False]
    assert (scores["score_linear-part"][:2] < 0.1).all()
    np.testing.assert_allclose(
        scores["score_linear-part"][2:], scores["score_joint"][2:], atol=0.02
    )


def test_a_linear_part_of_too_many_features_says_that_it_repeats_the_joint_space():
    x = np.random.default_rng(0).standard_normal((3, 60, 20))
    with pytest.warns(UserWarning, match="Project the unimodal spaces"):
        part = linear_part([x[0], x[1]], x[2])
    assert part.shape == (60, 20)


def _spread_of(sites):
    """Deviation of the difference from vision, from its p and the two scores."""
    score = np.arctanh(sites.evidence["score"])
    difference = score.sel(model="joint") - score.sel(model="vision")
    p = sites.evidence["p_comparison"].sel(comparison="vision")
    # 600 events in blocks of 10: 60 blocks in 3 runs.
    return (difference / t.isf(p, 57)).to_numpy()


def test_the_spread_of_a_choice_is_that_of_the_candidates_taken_in_every_fold():
    rng = np.random.default_rng(0)
    n_events, n_targets = 600, 150
    groups = np.repeat([0, 1, 2], 200)
    signal = rng.standard_normal((n_events, 10))
    views = [signal + rng.standard_normal(signal.shape) for _ in range(5)]
    weights = rng.standard_normal((10, n_targets)) / np.sqrt(10)
    y = 0.3 * signal @ weights + 0.95 * rng.standard_normal((n_events, n_targets))
    features = {"vision": views[0], "language": rng.standard_normal((n_events, 3))}
    settings = {"groups": groups, "block": 10, "n_resamples": 100, "rng": 0}

    def spread(joint):
        return _spread_of(integration_sites(features | {"joint": joint}, y, **settings))

    named = {f"network{number}": view for number, view in enumerate(views[1:])}
    alone = np.array([spread(view) for view in named.values()])
    nested = spread(named)
    # Scores in the slope of Fisher's z differ between candidates by a few hundredths.
    assert (nested < 1.03 * alone.max(axis=0)).all()
    assert (nested > 0.97 * alone.min(axis=0)).all()
    np.testing.assert_allclose(np.median(nested / alone.mean(axis=0)), 1, atol=0.02)
    # A candidate that every fold takes is as if it were given alone.
    poor = {**dict(list(named.items())[:1]), "noise": rng.standard_normal((600, 10))}
    strong = 5 * signal @ weights + rng.standard_normal((n_events, n_targets))
    joint, chosen = (
        integration_sites(features | {"joint": one}, strong, **settings)
        for one in (poor["network0"], poor)
    )
    for name in ("p_comparison", "score", "ci_low", "gain"):
        np.testing.assert_allclose(
            chosen.evidence[name], joint.evidence[name], rtol=1e-9, atol=1e-12
        )
