"""What integration_sites claims, over a hundred simulated data sets each.

They are small, so that a hundred take a minute: what is held here is the rate of error,
not the power. Larger ones, fewer of each, are in test_sites_replicates.py.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
N_REPLICATES = 100

pytestmark = pytest.mark.slow


@pytest.fixture
def simulations(monkeypatch):
    """Scripts import from the folder they lie in; nothing of it is left behind."""
    monkeypatch.syspath_prepend(str(BENCH))
    import site_bench.simulations

    yield site_bench.simulations
    for name in list(sys.modules):
        if name.partition(".")[0] == "site_bench":
            del sys.modules[name]


def seeds(number):
    return [np.random.default_rng([number, one]) for one in range(N_REPLICATES)]


def test_false_discoveries_and_simple_kinds_stay_below_their_level(simulations):
    tables = [
        simulations.planted(500, (0.3, 0.6), 0.5, rng, n_features=5, n_products=5)
        for rng in seeds(21)
    ]
    share, error = simulations.rate([[simulations.false_share(one)] for one in tables])
    assert share <= 0.05 + 2 * error
    for kind in ("none", "vision", "language", "additive"):
        called = [one["is_site"][one["kind"] == kind].to_numpy() for one in tables]
        assert np.mean(called) <= 0.05, kind
    # A method that finds nothing would pass all of this.
    found = [one["is_site"][one["kind"] == "interactive"] for one in tables]
    assert np.mean(np.concatenate(found)) > 0.3


@pytest.mark.parametrize("number", range(3))
def test_a_concatenation_in_disguise_is_no_multimodal_space(simulations, number):
    design = simulations.Design(n_events=500, n_features=5, n_targets=10, r=0.5)
    disguise = simulations.DISGUISES[number]
    tables = [simulations.disguised(disguise, design, rng) for rng in seeds(22)]
    assert np.mean([one["is_site"] for one in tables]) <= 0.05
    assert np.mean([one["p"] <= 0.05 for one in tables]) <= 0.05


def test_null_p_is_uniform_and_intervals_cover(simulations):
    design = simulations.Design(n_events=500, n_features=8, n_targets=10, r=0.4)
    replicates = [simulations.equal_views(design, 0, rng) for rng in seeds(23)]
    p = simulations.comparison_p(replicates)
    for level in (0.01, 0.05, 0.2, 0.35):
        share, error = simulations.rate((p <= level) | (p >= 1 - level))
        assert abs(share - 2 * level) <= 3 * error, level
    inside, error = simulations.rate(simulations.covered(replicates))
    assert 0.93 - error <= inside <= 0.97 + error


@pytest.mark.timeout(1200)
def test_a_true_correlation_of_015_is_found_in_4000_events(simulations):
    found = [
        table["is_site"][table["kind"] == "interactive"].mean()
        for rng in seeds(24)
        for table in [
            simulations.planted(
                4000, 0.15, 0.5, rng, n_targets=10,
                fractions={"interactive": 0.5, "none": 0.5},
            )
        ]
    ]  # fmt: skip
    assert np.mean(found) >= 0.8
