"""Scores of folds that train on each other spread wider than their permutations."""

import numpy as np
import pytest

from neuromm.core import feature_matrix, response_matrix
from neuromm.encoding import encode, permutation_test

N_TARGETS = 3000
PER_RUN = 100


@pytest.fixture(scope="module")
def noise():
    """Held-out predictions of white noise by noise, two runs; and its p."""
    rng = np.random.default_rng(0)
    run = np.repeat(["1", "2"], PER_RUN)
    onset = np.tile(2.0 * np.arange(PER_RUN), 2)
    features = feature_matrix(
        rng.standard_normal((2 * PER_RUN, 20)), onset=onset, run=run, space="noise"
    )
    responses = response_matrix(
        rng.standard_normal((2 * PER_RUN, N_TARGETS)), onset=onset, run=run
    )
    result = encode(features, responses, n_permutations=999, keep_predictions=True)
    return result["noise"], responses, run


@pytest.mark.parametrize("level", [0.01, 0.05])
def test_encode_finds_no_more_in_noise_than_the_level_allows(noise, level):
    p = noise[0].scores["p"].to_numpy()
    # Targets are independent: three binomial standard errors above the level.
    allowed = level + 3 * np.sqrt(level * (1 - level) / N_TARGETS)
    assert (p <= level).mean() <= allowed


def test_permutations_that_take_folds_as_independent_find_too_much(noise):
    result, responses, run = noise
    naive = permutation_test(
        result.predictions.to_numpy(),
        responses.to_numpy(),
        groups=run,
        block=10,
        n_permutations=999,
        rng=0,
    )
    assert (naive.p <= 0.01).mean() > 0.015
