"""Kernels of pairs, compiled for the CPU and launched as on a GPU."""

import re
from dataclasses import replace

import numpy as np
import pytest

from neuromm._resources import shared_folder
from neuromm.kernels import gpu_pairs
from neuromm.kernels.gpu_pairs import Pairs, Side, Upstream
from tests.kernels import pair_cases as cases

LINES = (gpu_pairs.LOG_SUMS, gpu_pairs.POSITIVES, gpu_pairs.COUNTS)
# Neither begins at a multiple of a block.
TILE = (70, 130)

sizes = pytest.mark.parametrize("size", cases.SIZES)
scales = pytest.mark.parametrize("scale", cases.SCALES)


def pairs_of(case, inverse=(None, None)):
    left, right = (
        Side(*known) for known in zip(inverse, case.labels, case.present, strict=True)
    )
    return Pairs(case.scale, left, right, case.matching)


def products_of(case):
    """Products of float32; nan where a row is absent."""
    return np.where(case.counted, case.left @ case.right.T, np.float32(np.nan))


def by_tiles(products, pairs, bound):
    totals = gpu_pairs.PairTotals(*products.shape, pairs, bound)
    for row in range(0, products.shape[0], TILE[0]):
        for column in range(0, products.shape[1], TILE[1]):
            tile = products[row : row + TILE[0], column : column + TILE[1]]
            totals.add(tile, row, column)
    return totals.rows, totals.columns


def in_one_launch(products, pairs, bound):
    del bound
    return gpu_pairs.small_pair_sums(products, pairs)


both_ways = pytest.mark.parametrize("compute", [by_tiles, in_one_launch])


def check_sums(found, case):
    lines = LINES[:1] if case.matching == "none" else LINES
    exact, plain = cases.sums(case.to("float64")), cases.sums(case)
    for results, wanted, rounded in zip(found, exact, plain, strict=True):
        for place, line in enumerate(lines):
            size = np.nan_to_num(abs(wanted[place]), posinf=0).max()
            cases.check(
                results[line],
                rounded[place],
                wanted[place],
                max(float(case.scale), size),
            )


@both_ways
@scales
@sizes
def test_sums_err_no_more_than_twice_plain_float32(shim, compute, size, scale):
    for kind in cases.KINDS:
        case = cases.case(*size, scale, kind)
        check_sums(compute(products_of(case), pairs_of(case), case.bound), case)


@both_ways
@pytest.mark.parametrize(("matching", "masked"), [("place", False), ("label", True)])
@sizes
def test_positives_are_found_among_the_pairs_that_are_there(
    shim, compute, size, matching, masked
):
    for scale in cases.SCALES:
        case = cases.case(*size, scale, "random", matching, masked)
        check_sums(compute(products_of(case), pairs_of(case), case.bound), case)


@both_ways
@scales
def test_without_any_pair_log_sums_are_minus_infinite(shim, compute, scale):
    case = cases.case(33, 70, scale, matching="label")
    nobody = np.zeros(33, dtype=bool), np.ones(70, dtype=bool)
    case = replace(case, present=nobody)
    rows, columns = compute(products_of(case), pairs_of(case), case.bound)
    for results in (rows, columns):
        assert np.all(results[gpu_pairs.LOG_SUMS] == -np.inf)
        assert not results[[gpu_pairs.POSITIVES, gpu_pairs.COUNTS]].any()


@both_ways
@scales
def test_a_nan_that_counts_spreads_to_its_row_and_column_alone(shim, compute, scale):
    case = cases.case(71, 67, scale)
    products = products_of(case)
    products[5, 64] = np.nan
    found = compute(products, pairs_of(case), case.bound)
    for results, place in zip(found, (5, 64), strict=True):
        spoilt = np.isnan(results[gpu_pairs.LOG_SUMS])
        assert spoilt[place]
        assert spoilt.sum() == 1


@both_ways
@pytest.mark.parametrize("scale", [50.0, 100.0])
def test_sums_and_slopes_are_the_same_bits_in_any_order_of_threads(
    shim, compute, scale
):
    case = cases.case(97, 141, scale, matching="label", masked=True)
    products, pairs = products_of(case), pairs_of(case)
    found = compute(products, pairs, case.bound)
    shim.schedule, shim.seed = "random", 11
    again = compute(products, pairs, case.bound)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


@both_ways
@scales
@sizes
def test_slopes_err_no_more_than_twice_plain_float32(shim, compute, size, scale):
    for kind, matching, masked in (
        ("opposite", "none", False),
        ("random", "place", False),
        ("repeated", "label", True),
    ):
        case = cases.case(*size, scale, kind, matching, masked)
        products, pairs = products_of(case), pairs_of(case)
        infinite = np.array(np.inf, np.float32)
        bound = infinite if compute is in_one_launch else case.bound
        results = compute(products, pairs, bound)
        gradients = cases.upstream(case)
        upstream = Upstream(*gradients[: 2 if matching == "none" else 4])
        found = gpu_pairs.pair_slopes(products, pairs, bound, results, upstream)
        assert found is products
        exact = cases.slopes(case.to("float64"), gradients)
        plain = cases.slopes(case, gradients)
        assert np.all(found[~case.counted] == 0)
        cases.check(found, plain, exact, abs(exact).max(initial=0))


def test_slopes_of_a_tile_are_those_of_its_place(shim):
    case = cases.case(131, 140, 100.0, "opposite", "label", masked=True)
    products, pairs = products_of(case), pairs_of(case)
    results = by_tiles(products, pairs, case.bound)
    upstream = Upstream(*cases.upstream(case))
    whole = gpu_pairs.pair_slopes(
        products, pairs, case.bound, results, upstream, out=np.empty_like(products)
    )
    part = np.ascontiguousarray(products[70:, 130:])
    found = gpu_pairs.pair_slopes(
        part, pairs, case.bound, results, upstream, first=(70, 130)
    )
    np.testing.assert_array_equal(found, whole[70:, 130:])


@scales
def test_rows_of_any_length_have_the_logits_of_their_cosines(shim, scale):
    case = cases.case(70, 133, scale, matching="place")
    rng = np.random.default_rng(3)
    # Powers of 2 round nothing.
    lengths = [2.0 ** rng.integers(-9, 9, n) for n in (70, 133)]
    inverse = tuple((1 / one).astype(np.float32) for one in lengths)
    products = products_of(case)
    longer = (products * np.multiply.outer(*lengths)).astype(np.float32)
    plain, scaled = pairs_of(case), pairs_of(case, inverse)
    upstream = Upstream(*cases.upstream(case))
    for compute in (by_tiles, in_one_launch):
        wanted = compute(products, plain, case.bound)
        found = compute(longer, scaled, case.bound)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    results = by_tiles(products, plain, case.bound)
    slopes = gpu_pairs.pair_slopes(
        products, plain, case.bound, results, upstream, out=np.empty_like(products)
    )
    gain = np.array(4.0, np.float32)
    found = gpu_pairs.pair_slopes(
        longer, scaled, case.bound, results, upstream, gain=gain
    )
    expected = 4 * slopes * np.multiply.outer(*inverse)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_slopes_are_rounded_to_the_nearest_half_precision(shim, dtype):
    torch = pytest.importorskip("torch")
    case = cases.case(66, 129, 14.3, matching="place")
    products, pairs = products_of(case), pairs_of(case)
    results = by_tiles(products, pairs, case.bound)
    upstream = Upstream(*cases.upstream(case))
    rest = (pairs, case.bound, results, upstream)
    out = np.empty(products.shape, dtype=np.int16)
    # Some in the range of subnormal numbers, some beyond the largest of float16.
    for gain in (1e-6, 1.0, 1e6):
        given = np.array(gain, np.float32)
        wide = gpu_pairs.pair_slopes(products.copy(), *rest, gain=given)
        found = gpu_pairs.pair_slopes(
            products, *rest, out=out, out_dtype=dtype, gain=given
        )
        expected = torch.from_numpy(wide).to(getattr(torch, dtype))
        bits = expected.view(torch.int16).numpy()
        np.testing.assert_array_equal(found, bits)


def test_bfloat16_keeps_nan_and_ties_go_to_even(shim):
    torch = pytest.importorskip("torch")
    # Without upstream gradients of log_sums the slope is the share of the column.
    share = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, np.nan], "f4")
    case = cases.case(1, 5, 1.0, matching="label")
    case = replace(case, labels=(np.zeros(1, "i8"), np.zeros(5, "i8")))
    products, pairs = products_of(case), pairs_of(case)
    results = by_tiles(products, pairs, case.bound)
    zeros = np.zeros(1, "f4"), np.zeros(5, "f4")
    found = gpu_pairs.pair_slopes(
        products,
        pairs,
        case.bound,
        results,
        Upstream(*zeros, zeros[0], share),
        out=np.empty((1, 5), dtype=np.int16),
        out_dtype="bfloat16",
    )
    values = torch.from_numpy(found).view(torch.bfloat16)
    torch.testing.assert_close(
        values,
        torch.from_numpy(share[None]).bfloat16(),
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def test_an_epilogue_is_one_launch_of_a_small_batch_and_two_of_a_tile(shim):
    case = cases.case(65, 129, 14.3)
    products, pairs = products_of(case), pairs_of(case)
    gpu_pairs.small_pair_sums(products, pairs)
    assert [one.kernel for one in shim.launches] == ["small_pairs"]
    shim.launches.clear()
    gpu_pairs.PairTotals(65, 129, pairs, case.bound).add(products, 0, 0)
    assert [one.kernel for one in shim.launches] == ["pair_stats", "pair_merge"]


def test_inputs_that_do_not_fit_are_named(shim):
    case = cases.case(4, 5, 14.3)
    products, pairs = products_of(case), pairs_of(case)
    with pytest.raises(TypeError, match=r"float32, got float64 of shape \(4, 5\)"):
        gpu_pairs.small_pair_sums(products.astype("f8"), pairs)
    with pytest.raises(ValueError, match=r"matching must be one of .* got 'diagonal'"):
        Pairs(case.scale, matching="diagonal")
    with pytest.raises(ValueError, match="labels of both sides"):
        Pairs(case.scale, Side(labels=np.zeros(4)), matching="label")
    results = gpu_pairs.small_pair_sums(products, pairs)
    upstream = Upstream(*cases.upstream(case)[:2])
    with pytest.raises(TypeError, match=r"array of int16 .* got float32"):
        gpu_pairs.pair_slopes(
            products, pairs, case.bound, results, upstream, out_dtype="bfloat16"
        )


def test_the_launcher_knows_the_blocks_of_the_sources():
    folder = shared_folder("cuda") / "contrastive"
    shared = (folder / "pairs.cuh").read_text()
    for name, value in {
        "kShift": gpu_pairs.SHIFT,
        "kSum": gpu_pairs.SUM,
        "kPositives": gpu_pairs.POSITIVES,
        "kCounts": gpu_pairs.COUNTS,
        "kLogSums": gpu_pairs.LOG_SUMS,
        "kParts": gpu_pairs.PARTS,
        "kResults": gpu_pairs.RESULTS,
    }.items():
        assert re.findall(rf"\b{name} = (\d+)[,;]", shared) == [str(value)]
    for source in ("pair_stats.cu", "pair_grad.cu"):
        text = (folder / source).read_text()
        rows, columns = (
            int(re.findall(rf"\b{name} = (\d+);", text)[0])
            for name in ("kRowsAWarp", "kColumnsALane")
        )
        assert re.findall(r"\bkWarps = (\d+);", text) == [str(gpu_pairs.WARPS)]
        assert rows * gpu_pairs.WARPS == gpu_pairs.ROWS
        assert columns * gpu_pairs.WARP == gpu_pairs.COLUMNS
