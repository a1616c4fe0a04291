"""A linear probe finds what is linear, and chooses its penalty without a leak."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.spot_features import SpotFeatures
from neuromm.encoding import (
    ExpressionProbe,
    expression_probe,
    fit_expression_probe,
)
from neuromm.metrics.expression import column_correlation


def section(rng, side=8, n_features=6, n_tiles=9, name="A1", grid=None):
    if grid is None:
        grid = np.argwhere(np.ones((side, side)))
    n_spots = len(grid)
    neighbors = rng.standard_normal((n_spots, n_tiles, n_features))
    mask = rng.random((n_spots, n_tiles)) < 0.7
    mask[:, n_tiles // 2] = True
    own = neighbors[:, n_tiles // 2]
    return SpotFeatures(
        section=name,
        spots=np.arange(n_spots).astype(str),
        target=own[:, None],
        neighbors=np.where(mask[:, :, None], neighbors, np.nan).astype(np.float32),
        neighbor_mask=mask,
        overview=own.astype(np.float32),
        grid=grid,
        encoder="planted",
        is_stand_in=True,
    )


def around(own):
    """Mean of the tiles on the slide."""
    return np.nanmean(own.neighbors.astype(np.float64), axis=1)


def test_a_planted_linear_truth_of_patch_and_surroundings_is_found():
    rng = np.random.default_rng(0)
    sections = [section(rng, name=name) for name in "ABC"]
    of_patch, of_tiles = rng.standard_normal((2, 6, 4))
    truth = [3 + own.overview @ of_patch + around(own) @ of_tiles for own in sections]
    found = expression_probe(sections[:2], truth[:2], ["P1", "P2"], sections[2:])
    # The smallest penalty is 1e-4 of the number of spots.
    np.testing.assert_allclose(found[0], truth[2], atol=2e-3)


def test_one_tile_is_the_patch_and_is_not_counted_twice():
    rng = np.random.default_rng(1)
    sections = [section(rng, n_tiles=1, name=name) for name in "ABC"]
    wide = [
        replace(
            own,
            neighbors=np.repeat(own.neighbors, 9, axis=1),
            neighbor_mask=np.tile([False] * 4 + [True] + [False] * 4, (own.n_spots, 1)),
        )
        for own in sections
    ]
    y = [rng.standard_normal((own.n_spots, 2)) + own.overview[:, :2] for own in wide]
    alone = expression_probe(sections[:2], y[:2], ["P1", "P2"], sections[2:])[0]
    twice = expression_probe(wide[:2], y[:2], ["P1", "P2"], wide[2:])[0]
    assert alone.shape == (64, 2)
    # A feature given twice is shrunk half as much: close, but not the same.
    np.testing.assert_allclose(alone, twice, atol=0.1)
    assert not np.allclose(alone, twice, atol=1e-6)


@pytest.mark.parametrize("n_features", [5, 100, 300])
def test_hest_is_the_pipeline_of_scikit_learn(n_features):
    """With fewer features than 256, with fewer than spots, and with more than both."""
    rng = np.random.default_rng(2)
    sections = [
        section(rng, side=side, n_features=n_features, name=name)
        for name, side in (("A", 12), ("B", 13), ("C", 6))
    ]
    y = [2 + rng.random((own.n_spots, 7)) for own in sections]
    x = np.concatenate([own.overview for own in sections[:2]]).astype(np.float64)
    n_components = min(256, *x.shape)
    peer = make_pipeline(
        StandardScaler(),
        PCA(n_components=n_components, svd_solver="full"),
        Ridge(alpha=100 / (n_components * 7), fit_intercept=False, solver="cholesky"),
    ).fit(x, np.concatenate(y[:2]))
    found = expression_probe(
        sections[:2], y[:2], ["P1", "P2"], sections[2:], protocol="hest"
    )
    expected = peer.predict(sections[2].overview.astype(np.float64))
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-9)


def test_hest_has_no_intercept_so_that_training_predictions_have_no_mean():
    rng = np.random.default_rng(3)
    own = section(rng)
    y = 5 + rng.standard_normal((own.n_spots, 2))
    found = expression_probe([own], [y], ["P1"], [own], protocol="hest")[0]
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    ours = expression_probe([own], [y], ["P1"], [own])[0]
    np.testing.assert_allclose(ours.mean(axis=0), y.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("by_spot", [False, True])
def test_what_only_tells_patients_apart_is_not_rewarded(by_spot):
    """Features that name the patient predict its other spots, and no other patient."""
    rng = np.random.default_rng(4)
    n_patients, n_features = 6, 40
    level = rng.standard_normal((n_patients, n_features))
    offset = 3 * rng.standard_normal((n_patients, 1))
    sections, y = [], []
    for number in range(n_patients):
        own = section(rng, side=6, n_features=n_features, n_tiles=1, name=str(number))
        overview = level[number] + 0.1 * rng.standard_normal(own.overview.shape)
        sections.append(replace(own, overview=overview))
        y.append(offset[number] + 0.1 * rng.standard_normal((own.n_spots, 1)))
    mean = np.concatenate(y[:-1]).mean()

    def error(groups):
        found = expression_probe(sections[:-1], y[:-1], groups, sections[-1:])[0]
        return np.abs(found - mean).max()

    patients = [
        np.full(own.n_spots, number) if by_spot else number
        for number, own in enumerate(sections[:-1])
    ]
    scattered = [np.arange(own.n_spots) % 4 for own in sections[:-1]]
    assert error(scattered) > 1.0  # spots of one patient on both sides: a leak
    assert error(patients) < 0.1 * error(scattered)


@pytest.mark.parametrize("kind", ["st", "visium"])
def test_one_patient_alone_is_judged_on_blocks_of_its_tissue(kind):
    """A smooth map of expression, and features that name the neighbourhood."""
    rng = np.random.default_rng(5)
    grid = np.argwhere(np.ones((16, 16)))
    if kind == "visium":
        grid[:, 1] = 2 * grid[:, 1] + grid[:, 0] % 2
    own = section(rng, n_features=64, n_tiles=1, grid=grid)
    # Each patch of tissue of 4 x 4 spots has its own look, and its own expression.
    patch = 4 * (grid[:, 0] // 4) + grid[:, 1] // (4 if kind == "st" else 8)
    looks, levels = rng.standard_normal((17, 64)), rng.standard_normal((17, 1))
    own = replace(own, overview=looks[patch] + 0.1 * own.overview)
    y = levels[patch] + 0.1 * rng.standard_normal((len(grid), 1))
    new = replace(own, overview=rng.standard_normal((len(grid), 64)))

    def size(groups):
        found = expression_probe([own], [y], groups, [new])[0]
        return np.ptp(found)

    assert size([np.arange(len(grid)) % 4]) > 2.0  # neighbours in training: a leak
    assert size(["one"]) < 0.1
    assert size([np.full(len(grid), "one")]) == size(["one"])


def test_one_patient_with_too_few_spots_to_choose_a_penalty_is_told():
    tiny = section(np.random.default_rng(13), side=2)
    with pytest.raises(UsageError, match=r"one group, .*\[4\] spots are too small"):
        expression_probe([tiny], [tiny.overview], ["P1"], [tiny])


def test_a_gene_that_does_not_vary_gives_its_mean_and_leaves_others_alone():
    rng = np.random.default_rng(6)
    sections = [section(rng, name=name) for name in "AB"]
    y = [own.overview @ rng.standard_normal((6, 3)) for own in sections]
    constant = [np.column_stack([own, np.full(len(own), 1.7)]) for own in y]
    found = expression_probe(sections, constant, ["P1", "P2"], sections[:1])[0]
    assert (found[:, 3] == 1.7).all()
    alone = expression_probe(sections, y, ["P1", "P2"], sections[:1])[0]
    np.testing.assert_allclose(found[:, :3], alone, atol=1e-9)


def test_a_gene_that_features_tell_nothing_about_is_given_by_its_mean():
    rng = np.random.default_rng(7)
    sections = [section(rng, side=15, name=name) for name in "ABC"]
    y = [4 + rng.standard_normal((own.n_spots, 1)) for own in sections]
    found = expression_probe(sections, y, ["P1", "P2", "P3"], sections)
    assert np.abs(np.concatenate(found) - 4).max() < 0.5


def test_the_unit_of_a_feature_does_not_matter_and_a_constant_one_is_ignored():
    rng = np.random.default_rng(8)
    sections = [section(rng, n_tiles=1, name=name) for name in "ABC"]
    y = [own.overview[:, :1] + rng.standard_normal((64, 1)) for own in sections]
    unit = np.array([1e-3, 1, 1e3, 1, 1, 1])
    other = [
        replace(own, overview=np.hstack([own.overview * unit, np.full((64, 1), 7.0)]))
        for own in sections
    ]
    for protocol in ("ridge", "hest"):
        given = (["P1", "P2"],)
        one = expression_probe(
            sections[:2], y[:2], *given, sections[2:], protocol=protocol
        )
        two = expression_probe(other[:2], y[:2], *given, other[2:], protocol=protocol)
        if protocol == "ridge":
            np.testing.assert_allclose(one[0], two[0], atol=1e-5)
        else:  # the penalty of HEST counts features
            assert column_correlation(one[0], two[0])[0] > 0.9999


def test_no_test_section_gives_no_prediction():
    own = section(np.random.default_rng(9))
    assert expression_probe([own], [own.overview], ["P1"], []) == []


def test_what_does_not_fit_together_is_named():
    rng = np.random.default_rng(10)
    one, two = section(rng, name="A1"), section(rng, name="B1")
    y = rng.standard_normal((64, 3))
    with pytest.raises(UsageError, match="2 sections, 1 tables and 2 groups"):
        expression_probe([one, two], [y], ["A", "B"], [one])
    with pytest.raises(UsageError, match=r"B1: expression must have a row for each of"):
        expression_probe([one, two], [y, y[:, :2]], ["A", "B"], [one])
    with pytest.raises(UsageError, match=r"A1: expression must .* got \(63, 3\)"):
        expression_probe([one], [y[:63]], ["A"], [one])
    with pytest.raises(UsageError, match="A1: expression holds nan"):
        expression_probe([one], [np.full((64, 3), np.nan)], ["A"], [one])
    with pytest.raises(UsageError, match=r"groups must be one label, or one for each"):
        expression_probe([one], [y], [np.zeros(3)], [one])
    with pytest.raises(UsageError, match="protocol must be 'ridge' or 'hest'"):
        expression_probe([one], [y], ["A"], [one], protocol="lasso")
    other = replace(two, encoder="another")
    with pytest.raises(UsageError, match="B1: features must be as those of A1"):
        expression_probe([one, other], [y, y], ["A", "B"], [one])
    with pytest.raises(UsageError, match=r"B1: the probe .*'planted', 6, 9.*'another'"):
        expression_probe([one], [y], ["A"], [other])
    gone = replace(one, overview=np.full_like(one.overview, np.nan))
    with pytest.raises(UsageError, match="A1: features hold nan or infinity"):
        expression_probe([gone], [y], ["A"], [one])


@pytest.mark.parametrize("protocol", ["ridge", "hest"])
def test_a_probe_that_was_kept_predicts_the_same_bytes(tmp_path, protocol):
    rng = np.random.default_rng(11)
    one, two = section(rng, name="A1"), section(rng, name="B1")
    y = [own.overview[:, :2] + rng.standard_normal((64, 2)) for own in (one, two)]
    probe = fit_expression_probe([one, two], y, ["A", "B"], protocol=protocol)
    path = probe.save(tmp_path / "ridge.safetensors")
    kept = ExpressionProbe.load(path)
    np.testing.assert_array_equal(kept.predict(two), probe.predict(two))
    (direct,) = expression_probe([one, two], y, ["A", "B"], [two], protocol=protocol)
    np.testing.assert_array_equal(kept.predict(two), direct)
    short = section(rng, name="C1", n_tiles=1)
    with pytest.raises(UsageError, match="C1: the probe was fitted on"):
        kept.predict(short)
    again = kept.save(tmp_path / "made" / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_a_file_that_is_no_probe_is_refused(tmp_path):
    own = section(np.random.default_rng(12))
    probe = fit_expression_probe([own], [own.overview], ["P1"])
    path = probe.save(tmp_path / "ridge.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"ridge\.safetensors: is no saved linear"):
        ExpressionProbe.load(path)
    save_file({"weights": np.zeros(3)}, path)
    with pytest.raises(DataError, match="is no saved linear probe"):
        ExpressionProbe.load(path)
    replace(probe, n_tiles=1).save(path)
    with pytest.raises(DataError, match=r"is no saved linear probe .* for 6 columns"):
        ExpressionProbe.load(path)
    replace(probe, protocol="lasso").save(path)
    with pytest.raises(DataError, match="protocol 'lasso'"):
        ExpressionProbe.load(path)
    with pytest.raises(InputMissingError, match="no such file"):
        ExpressionProbe.load(tmp_path / "none")
