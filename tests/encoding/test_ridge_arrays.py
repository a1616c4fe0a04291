"""The ridge on arrays of other libraries, and when memory runs out."""

import array_api_strict
import numpy as np
import pytest
import torch

from neuromm.core import ResourceLimitError
from neuromm.encoding import BlockedKFold, RidgeCV
from neuromm.encoding.ridge_fit import fit_ridge
from neuromm.kernels import EigenRidge, HoldOutRidge, Solver, select_alphas
from neuromm.kernels.arrays import host_array

ALPHAS = np.geomspace(1e-2, 1e6, 12)
FORMS = ["primal", "dual"]
METHODS = ["divided-difference", "direct", "hold-out"]
SHAPES = {"p < n": (90, 12), "p > n": (50, 120)}
# Contiguous folds read slices; purged and repeated rows are taken by index.
KINDS = ["contiguous", "purged", "bootstrap"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*of the targets chose the", "ignore:.*targets are constant or have"
)


def problem(shape, n_targets=40):
    rng = np.random.default_rng(0)
    n_samples, n_features = SHAPES[shape]
    x = rng.standard_normal((n_samples, n_features))
    w = rng.standard_normal((n_features, n_targets)) / n_features**0.5
    noise = rng.standard_normal((n_samples, n_targets))
    y = x @ w + noise * np.geomspace(0.1, 10, n_targets) + 3.0
    y[3, 5], y[:, 6] = np.nan, 0.1
    return x, y


def splits_of(kind, n_samples):
    if kind == "bootstrap":
        rng = np.random.default_rng(1)
        train = [rng.integers(n_samples, size=n_samples) for _ in range(3)]
        return [(one, np.setdiff1d(np.arange(n_samples), one)) for one in train]
    purge = 3.0 if kind == "purged" else 0.0
    onset = np.arange(float(n_samples))
    return list(
        BlockedKFold(5, purge=purge, onset=onset).split(np.zeros((n_samples, 1)))
    )


def engine_results(x, y, splits, *, form, method, scoring):
    """What an engine gives, on the host: path, score of the chosen, weights."""
    shared = {"form": form, "scoring": scoring, "fit_intercept": True, "n_targets": 40}
    if method == "hold-out":
        made = HoldOutRidge(x, splits, ALPHAS, **shared)
    else:
        made = EigenRidge(x, splits, ALPHAS, method=method, **shared)
    batch = made.load(y)
    path = made.path(batch)
    choice = select_alphas(path, ALPHAS)
    results = (
        path,
        choice,
        made.at(batch, choice),
        made.penalties(batch, choice),
        *made.weights(batch, choice),
        batch.targets.valid,
        batch.targets.constants(),
    )
    assert all(type(one) is type(x) for one in results)
    return [host_array(one) for one in results]


@pytest.fixture
def lenient_index(monkeypatch):
    """Indices of rows alone, as NumPy, torch and CuPy all take them."""
    strict = array_api_strict._array_object.Array
    monkeypatch.setattr(strict, "_validate_index", lambda *_, **__: None)


@pytest.mark.usefixtures("lenient_index")
@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_engines_give_the_same_numbers_in_every_library(
    library, kind, shape, form, method
):
    # array_api_strict has what the standard spells and nothing else: what runs on it
    # runs on CuPy.
    convert = {"torch": torch.asarray, "array_api_strict": array_api_strict.asarray}
    x, y = problem(shape)
    splits = splits_of(kind, len(x))
    for scoring in ("r2", "correlation", "mse"):
        if method == "hold-out" and (scoring == "correlation" or kind != "contiguous"):
            continue
        settings = {"form": form, "method": method, "scoring": scoring}
        expected = engine_results(x, y, splits, **settings)
        results = engine_results(
            convert[library](x), convert[library](y), splits, **settings
        )
        for one, two in zip(results, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scoring", ["r2", "correlation", "mse"])
@pytest.mark.parametrize("on_device", [True, False])
def test_a_fit_with_torch_features_takes_targets_of_torch_or_numpy(
    dtype, shape, scoring, on_device
):
    x, y = (one.astype(dtype) for one in problem(shape))
    splits = splits_of("contiguous", len(x))
    solver = Solver.named("dual-divided-difference")
    expected = fit_ridge(x, y, splits, ALPHAS, scoring=scoring, solver=solver)
    fit = fit_ridge(
        torch.asarray(x),
        torch.asarray(y) if on_device else y,
        splits,
        ALPHAS,
        scoring=scoring,
        solver=solver,
    )
    library = torch.Tensor if on_device else np.ndarray
    same = host_array(fit.best_alphas) == expected.best_alphas
    assert same[expected.valid_targets].mean() >= (1 if dtype == "f8" else 0.9)
    tolerance = 1e-8 if dtype == "f8" else 1e-3
    for name in ("coef", "intercept", "best_alphas", "cv_scores", "valid_targets"):
        one, two = getattr(fit, name), getattr(expected, name)
        assert isinstance(one, library), name
        one = host_array(one)
        assert one.dtype == two.dtype, name
        columns = same | ~expected.valid_targets
        np.testing.assert_allclose(
            one[..., columns], two[..., columns], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_estimator_predicts_in_the_library_of_its_targets(shape):
    x, y = problem(shape)
    expected = RidgeCV(ALPHAS).fit(x, y)
    fit = RidgeCV(ALPHAS).fit(torch.asarray(x), torch.asarray(y))
    prediction = fit.predict(torch.asarray(x))
    assert isinstance(prediction, torch.Tensor)
    np.testing.assert_allclose(prediction.numpy(), expected.predict(x), rtol=1e-8)
    assert fit.score(torch.asarray(x), torch.asarray(y)) == pytest.approx(
        expected.score(x, y)
    )


class Exhausted:
    """Makes batches above a width fail, as a full memory would."""

    def __init__(self, monkeypatch, widest, error):
        load = EigenRidge.load
        self.widths = []

        def limited(engine, y):
            self.widths.append(y.shape[1])
            if y.shape[1] > widest:
                raise error
            return load(engine, y)

        monkeypatch.setattr(EigenRidge, "load", limited)


OUT_OF_MEMORY = [
    MemoryError("full"),
    torch.OutOfMemoryError("CUDA out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["host", "device"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same(
    monkeypatch, error, form, library
):
    x, y = problem("p < n")
    if library == "torch":
        x, y = torch.asarray(x), torch.asarray(y)
    splits = splits_of("contiguous", len(x))
    solver = Solver.named(f"{form}-divided-difference")
    whole = fit_ridge(x, y, splits, ALPHAS, solver=solver)
    exhausted = Exhausted(monkeypatch, 7, error)
    halved = fit_ridge(x, y, splits, ALPHAS, solver=solver)
    assert max(exhausted.widths) == 40
    assert sum(width for width in exhausted.widths if width <= 7) == 40
    for name in ("coef", "intercept", "best_alphas", "cv_scores", "valid_targets"):
        np.testing.assert_allclose(
            host_array(getattr(halved, name)),
            host_array(getattr(whole, name)),
            rtol=1e-10,
            atol=1e-10,
        )


def test_a_target_that_does_not_fit_alone_ends_the_fit_with_advice(monkeypatch):
    x, y = problem("p < n")
    Exhausted(monkeypatch, 0, MemoryError("full"))
    with pytest.raises(ResourceLimitError, match="ran out in a fit of a single target"):
        RidgeCV(ALPHAS, solver="primal-direct").fit(x, y)


def test_another_error_is_not_taken_for_a_full_memory(monkeypatch):
    x, y = problem("p < n")
    exhausted = Exhausted(monkeypatch, 0, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        RidgeCV(ALPHAS, solver="primal-direct").fit(x, y)
    assert exhausted.widths == [40]
