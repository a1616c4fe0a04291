"""The best score of a simulated data set is the one that it states."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.simulate import make_encoding_dataset


def correlation(x, y):
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))


def signal(data):
    return sum(
        data.features[s].to_numpy() @ data.weights[s].to_numpy() for s in data.features
    )


@pytest.mark.parametrize("snr", [0.2, 1.0])
def test_true_weights_reach_the_stated_correlation(snr):
    n_samples = 20_000
    data = make_encoding_dataset(n_samples, n_targets=40, snr=snr, rng=1)
    driven = (data.truth["kind"] != "none").to_numpy()
    r = correlation(signal(data)[:, driven], data.responses.to_numpy()[:, driven])
    # Four standard errors of a correlation: 30 targets are looked at.
    np.testing.assert_allclose(
        r, data.truth["r_max"][driven], atol=4 / np.sqrt(n_samples)
    )


def test_noise_targets_follow_no_feature():
    n_samples = 20_000
    data = make_encoding_dataset(n_samples, n_targets=40, rng=2)
    noise = data.responses[:, (data.truth["kind"] == "none").to_numpy()].to_numpy()
    for matrix in data.features.values():
        r = np.corrcoef(matrix.to_numpy().T, noise.T)[: matrix.shape[1], -10:]
        # 400 correlations: five standard errors.
        assert abs(r).max() < 5 / np.sqrt(n_samples)


def test_a_target_follows_only_the_spaces_of_its_kind():
    data = make_encoding_dataset(n_targets=8, snr=0.5)
    norms = data.truth.set_index("kind")
    assert (norms.loc["vision", "norm_language"] == 0).all()
    assert (norms.loc["language", "norm_vision"] == 0).all()
    assert (norms.loc["none", ["norm_vision", "norm_language"]] == 0).all(axis=None)
    # Both spaces give half of the signal variance, 0.5 in all.
    np.testing.assert_allclose(norms.loc["both", "norm_vision"], np.sqrt(0.25))


@settings(max_examples=30, deadline=None)
@given(
    n_targets=st.integers(1, 60),
    shares=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
)
def test_kinds_have_their_shares_and_add_up(n_targets, shares):
    kinds = ["vision", "language", "both", "none"]
    fractions = dict(zip(kinds, shares, strict=True))
    data = make_encoding_dataset(10, n_targets=n_targets, fractions=fractions)
    counts = data.truth["kind"].value_counts()
    assert counts.sum() == n_targets
    for kind, share in fractions.items():
        expected = n_targets * share / sum(shares)
        assert abs(counts.get(kind, 0) - expected) <= 1 + 1e-9


def test_the_same_seed_draws_the_same_data_and_another_does_not():
    first, again = make_encoding_dataset(rng=5), make_encoding_dataset(rng=5)
    other = make_encoding_dataset(rng=6)
    assert first.responses.equals(again.responses)
    assert not first.responses.equals(other.responses)


def test_runs_share_the_samples_and_restart_the_clock():
    data = make_encoding_dataset(10, n_targets=2, n_runs=3)
    assert list(data.responses["run"].values) == list("1111222333")
    assert list(data.responses["onset"].values[3:6]) == [6.0, 0.0, 2.0]
    assert data.features["vision"]["onset"].equals(data.responses["onset"])


def test_any_feature_spaces_may_be_named():
    data = make_encoding_dataset(
        50, {"sound": 3, "motion": 5, "text": 2}, 10, rng=0, snr=1.0
    )
    both = data.truth.query("kind == 'both'").filter(like="norm_")
    np.testing.assert_allclose(both, np.sqrt(1 / 3))
    assert data.features["motion"].sizes == {"sample": 50, "feature": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"snr": 0}, "snr must be above 0"),
        ({"n_runs": 0}, "n_runs must lie between"),
        ({"fractions": {"sound": 1.0}}, "unknown kind sound"),
        ({"n_features": {"none": 3}}, "cannot be called none"),
        ({"fractions": {"vision": 0.0}}, "sum above 0"),
    ],
)
def test_impossible_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_encoding_dataset(**arguments)
