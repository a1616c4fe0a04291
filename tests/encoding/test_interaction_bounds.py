"""Synergy against logic gates, a general solver, and planted responses."""

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.optimize import minimize

from neuromm.core import DataError, UsageError
from neuromm.encoding.interaction_bounds import partial_information, synergy_bounds
from neuromm.encoding.synergy_evidence import site_synergy


def gate(rule):
    """Table of y = rule(a, b) for fair and independent a and b."""
    table = np.zeros((2, 2, 2))
    for a in (0, 1):
        for b in (0, 1):
            table[a, b, rule(a, b)] = 0.25
    return table


REDUNDANT = np.zeros((2, 2, 2))
REDUNDANT[0, 0, 0] = REDUNDANT[1, 1, 1] = 0.5
THREE_QUARTERS = 0.75 * np.log2(4 / 3)  # I(A; Y) of AND is 0.311 bits

GATES = {
    "exclusive or": (gate(lambda a, b: a ^ b), (0, 0, 0, 1)),
    "and": (gate(lambda a, b: a & b), (THREE_QUARTERS, 0, 0, 0.5)),
    "copy of a": (gate(lambda a, _: a), (0, 1, 0, 0)),
    "redundant": (REDUNDANT, (1, 0, 0, 0)),
}


def parts_of(found):
    return found.redundancy, found.unique_a, found.unique_b, found.synergy


def pairs_of(p):
    return p.sum(axis=-2), p.sum(axis=-3), p.sum(axis=-1)  # (a, y), (b, y), (a, b)


def random_tables(n_tables, shape, seed, concentration=1.0):
    rng = np.random.default_rng(seed)
    cells = int(np.prod(shape))
    flat = rng.dirichlet(np.full(cells, concentration), n_tables)
    return flat.reshape(n_tables, *shape)


def entropy(p):
    return -np.sum(p * np.log2(np.where(p > 0, p, 1.0)))


def least_information(p):
    """Least I(A, B; Y) by SLSQP in the null space of the margins."""
    shape = p.shape
    rows = []
    for axis in (0, 1):
        for x in range(shape[axis]):
            for y in range(shape[2]):
                row = np.zeros(shape)
                row[(slice(None),) * axis + (x,)][..., y] = 1
                rows.append(row.ravel())
    directions = null_space(np.array(rows))
    start = (p.sum(1)[:, None] * p.sum(0)[None] / p.sum((0, 1))).ravel()

    def information(q):
        pair = q.reshape(-1, shape[2]).sum(1)
        return entropy(pair) + entropy(p.sum((0, 1))) - entropy(q)

    def cells(x):
        return np.maximum(start + directions @ x, 1e-15)

    def gradient(x):
        q = cells(x).reshape(-1, shape[2])
        return directions.T @ np.log2(q / q.sum(1, keepdims=True)).ravel()

    found = minimize(
        lambda x: information(cells(x)),
        np.zeros(directions.shape[1]),
        jac=gradient,
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda x: start + directions @ x,
            "jac": lambda _: directions,
        },
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return found.fun


@pytest.mark.parametrize("name", GATES)
def test_gates_have_their_known_parts(name):
    table, expected = GATES[name]
    np.testing.assert_allclose(
        parts_of(partial_information(table)), expected, atol=1e-6
    )


def test_bounds_of_gates_enclose_their_synergy_closely():
    bounds = synergy_bounds(*pairs_of(np.stack([g for g, _ in GATES.values()])))
    xor, and_ = 0, 1
    assert bounds.upper[xor] == pytest.approx(1, abs=1e-6)
    assert bounds.lower[xor] == pytest.approx(0, abs=1e-6)
    assert bounds.upper[and_] == pytest.approx(0.5, abs=1e-6)
    assert bounds.lower[and_] == pytest.approx(THREE_QUARTERS, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "n_tables"), [((2, 2, 2), 25), ((3, 2, 2), 15), ((3, 3, 3), 8)]
)
def test_the_solver_agrees_with_slsqp(shape, n_tables):
    p = random_tables(n_tables, shape, seed=1)
    peer = np.array([least_information(table) for table in p])
    pair = np.array([entropy(table.sum(2)) + entropy(table.sum((0, 1))) for table in p])
    joint = pair - np.array([entropy(table) for table in p])
    np.testing.assert_allclose(partial_information(p).synergy, joint - peer, atol=1e-6)


def test_parts_add_up_and_none_is_negative():
    p = random_tables(300, (4, 4, 4), seed=2, concentration=0.3)
    found = partial_information(p)
    joint = [entropy(t.sum(2)) + entropy(t.sum((0, 1))) - entropy(t) for t in p]
    np.testing.assert_allclose(np.sum(parts_of(found), axis=0), joint, atol=1e-9)
    assert np.min(parts_of(found)) > -1e-6


def test_a_and_b_change_places_and_values_change_names_without_effect():
    p = random_tables(50, (3, 4, 2), seed=3)
    found = partial_information(p)
    swapped = partial_information(p.transpose(0, 2, 1, 3))
    # Each is known to 2e-7 bits.
    np.testing.assert_allclose(found.unique_a, swapped.unique_b, atol=5e-7)
    renamed = partial_information(p[:, ::-1, [2, 0, 3, 1]])
    np.testing.assert_allclose(found.synergy, renamed.synergy, atol=5e-7)


@pytest.mark.parametrize("concentration", [1.0, 0.1])
@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 3, 3)])
def test_no_table_violates_its_bounds(shape, concentration):
    p = random_tables(200, shape, seed=4, concentration=concentration)
    synergy = partial_information(p).synergy
    bounds = synergy_bounds(*pairs_of(p))
    assert np.all(bounds.lower_redundancy <= synergy + 1e-6)
    assert np.all(bounds.lower_disagreement <= synergy + 1e-6)
    assert np.all(bounds.upper >= synergy - 1e-6)
    assert np.mean(bounds.lower_redundancy > 0.01) > 0.1  # and they say something


def test_disagreement_bounds_synergy_where_views_differ():
    # a and b alone tell of y, and contradict each other half of the time.
    p = gate(lambda a, b: a & b)
    bounds = synergy_bounds(*pairs_of(p))
    apart = np.array([[0, 1], [1, 0]])  # |p(y|a) - p(y|b)|_1 = 2 * 0.5
    expected = (0.25 * apart**2).sum() / (8 * np.log(2))
    assert bounds.lower_disagreement == pytest.approx(expected, abs=1e-6)


def test_rare_and_empty_cells_are_solved():
    p = random_tables(300, (4, 4, 4), seed=5, concentration=0.03)
    p[:100, 1] = 0
    p[100:200, :, :, 2] = 0
    found = partial_information(p)
    assert np.isfinite(found.synergy).all()
    assert np.min(parts_of(found)) > -1e-6


def test_counts_are_scaled_and_empty_tables_are_nan():
    tables = np.stack([GATES["and"][0] * 40, np.zeros((2, 2, 2))])
    np.testing.assert_allclose(
        partial_information(tables).synergy, [0.5, np.nan], atol=1e-6
    )
    bounds = synergy_bounds(*pairs_of(tables))
    np.testing.assert_allclose(bounds.upper, [0.5, np.nan], atol=1e-6)
    assert synergy_bounds(*pairs_of(tables[:0])).upper.shape == (0,)


def planted(kind, n_samples, n_targets, seed=0):
    rng = np.random.default_rng(seed)
    a, b, noise = rng.standard_normal((3, n_samples, n_targets))
    rules = {
        "none": noise,
        "only a": a + noise,
        "sum": a + b + noise,
        "product": 2 * a * b + noise,
    }
    return a, b, rules[kind]


def test_planted_gates_in_samples_have_their_synergy_and_p():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, (2, 2000, 4)).astype(float)
    y = np.stack([(a != b)[:, 0], (a * b)[:, 1], a[:, 2], rng.random(2000)], axis=1)
    found = site_synergy(a, b, y, rng=0, n_bins=2, n_permutations=99, block=1)
    # Frequencies of 2000 samples err by about 1 %.
    np.testing.assert_allclose(found.synergy, [1, 0.5, 0, 0], atol=0.03)
    assert np.all(found.p[:2] == 1 / 100)
    assert np.all(found.p[2:] > 0.05)
    assert np.all(found.lower <= found.synergy + 1e-6)
    assert np.all(found.synergy <= found.upper + 1e-6)


def test_products_and_sums_are_synergistic():
    for kind in ("product", "sum"):
        found = site_synergy(*planted(kind, 600, 5), rng=0, n_bins=3, n_permutations=49)
        assert np.all(found.p == 1 / 50), kind
    # A sum has synergy too: p does not tell it from an interaction.
    assert np.all(found.synergy > 0.05)


@pytest.mark.parametrize("kind", ["none", "only a"])
def test_responses_without_synergy_pass_at_the_nominal_rate(kind):
    a, b, y = planted(kind, 400, 150)
    p = site_synergy(a, b, y, rng=0, n_bins=2, n_permutations=99, block=1).p
    # 150 tests at 5 %: a standard error of 1.8 %.
    assert np.mean(p <= 0.05) < 0.05 + 2 * 0.018


def test_shuffled_responses_alone_would_call_unimodal_targets_synergistic():
    # Where a is informative, the estimate of synergy has more bias than without: why
    # site_synergy shuffles the predictions too.
    rng = np.random.default_rng(1)
    codes = [x.argsort(0).argsort(0) * 3 // 400 for x in planted("only a", 400, 100)]

    def synergy(a, b, y):
        tables = np.zeros((100, 3, 3, 3))
        np.add.at(tables, (np.arange(100), a, b, y), 1)
        return partial_information(tables).synergy

    observed = synergy(*codes)
    shuffles = [rng.permutation(codes[2]) for _ in range(39)]
    null = np.stack([synergy(*codes[:2], y) for y in shuffles])
    p = (1 + (null >= observed).sum(0)) / 40
    assert np.mean(p <= 0.05) > 0.1


def test_blocks_must_outlast_the_autocorrelation():
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.standard_normal((3, 40, 60)), 15, axis=1)
    settings = {"rng": 0, "n_bins": 2, "n_permutations": 59}
    blocked = site_synergy(*slow, block=15, **settings).p
    single = site_synergy(*slow, block=1, **settings).p
    # 60 tests at 5 %: a standard error of 2.8 %.
    assert np.mean(blocked <= 0.05) < 0.05 + 2 * 0.028
    assert np.mean(single <= 0.05) > 0.3


def test_nothing_is_shuffled_across_runs():
    # The run alone decides all three, so shuffling within runs changes nothing.
    run = np.repeat([0, 1, 2, 3], 20)
    a, b = (run // 2)[:, None] * 1.0, (run % 2)[:, None] * 1.0
    y = (a != b) * 1.0
    settings = {"rng": 0, "n_bins": 2, "n_permutations": 19, "block": 1}
    assert site_synergy(a, b, y, groups=run, **settings).p == 1
    assert site_synergy(a, b, y, **settings).p == 1 / 20


def test_bins_are_cut_at_quantiles_of_the_training_rows():
    a, b, y = planted("product", 800, 2)
    train = np.arange(800) < 400
    settings = {"rng": 0, "n_bins": 2, "n_permutations": 9}
    by_mask = site_synergy(a, b, y, train=train, **settings)
    by_rows = site_synergy(a, b, y, train=np.arange(400), **settings)
    np.testing.assert_array_equal(by_mask.synergy, by_rows.synergy)
    moved = y.copy()
    moved[:400] += 100  # held-out responses now lie below every training quantile
    found = site_synergy(a, b, moved, train=train, **settings)
    np.testing.assert_allclose(found.synergy, 0, atol=0.02)


def test_constants_and_missing_values_have_no_synergy():
    a, b, y = planted("product", 100, 4)
    y[:, 0] = 0.1
    b[3, 1] = np.nan
    a[:, 2] = 0.1  # a prediction that says nothing
    found = site_synergy(a, b, y, rng=0, n_bins=2, n_permutations=9)
    assert np.isnan(found.p).tolist() == [True, True, False, False]
    assert np.isnan(found.synergy).tolist() == [True, True, False, False]
    assert found.p[2] == 1
    y[:] = 0
    nothing = site_synergy(a, b, y, rng=0, n_bins=2, n_permutations=9)
    assert np.isnan(nothing.p).all()


def test_the_estimate_is_free_of_most_of_its_bias():
    a, b, y = planted("only a", 400, 100)
    found = site_synergy(a, b, y, rng=0, n_bins=3, n_permutations=1)
    # The plain estimate is about 12 cells / (2 n ln 2) = 0.02 bits too large.
    assert abs(found.synergy.mean()) < 0.005


def test_few_samples_are_warned_of():
    with pytest.warns(UserWarning, match=r"100 samples in 4\^3 cells"):
        site_synergy(*planted("none", 100, 1), rng=0, n_permutations=1)


HALF = np.full((2, 2), 0.25)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: partial_information(-gate(min)), DataError, "none negative"),
        (lambda: partial_information(HALF), DataError, "last 3 axes"),
        (
            lambda: synergy_bounds(HALF, [[0.5, 0.1], [0.2, 0.2]], HALF),
            DataError,
            r"probabilities of y that differ by 0.2.*weigh the rows",
        ),
        (
            lambda: synergy_bounds(HALF, np.ones((2, 3)), HALF),
            DataError,
            "as many values of y",
        ),
        (
            lambda: site_synergy(HALF, HALF[:1], HALF, rng=0),
            DataError,
            "same shape",
        ),
        (
            lambda: site_synergy(HALF, HALF, HALF, rng=0, n_bins=1),
            UsageError,
            "n_bins must be 2",
        ),
        (
            lambda: site_synergy(HALF, HALF, HALF, rng=0, block=2),
            UsageError,
            "two blocks of 2 samples",
        ),
        (
            lambda: site_synergy(HALF, HALF, HALF, rng=0, train=[0, 1], block=1),
            UsageError,
            "train must leave some",
        ),
    ],
)
def test_what_cannot_be_decomposed_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()
