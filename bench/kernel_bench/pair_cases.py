"""Kernels of log-sum-exp over pairs of rows, and of its gradient, tile by tile."""

from kernel_bench.case import Case
from kernel_bench.contrastive_cases import (
    LARGE,
    PAIRS,
    ROUNDING,
    SCALE,
    SMALL,
    TILE,
    cosines,
    log_sum_exp,
    read_and_written,
    read_once,
)
from neuromm.kernels import gpu_pairs
from neuromm.kernels.arrays import namespace
from neuromm.kernels.gpu_pairs import LOG_SUMS, POSITIVES, Pairs, PairTotals, Upstream


def _tile(draw, n_rows, n_columns):
    products = cosines(draw, n_rows, n_columns)
    return {
        "products": products,
        "scale": draw.number(SCALE),
        "bound": draw.number(SCALE * 1.0001),
    }


def _pair_stats(products, scale, bound):
    pairs = Pairs(scale, matching="place")
    totals = PairTotals(*products.shape, pairs, bound)
    totals.add(products, 0, 0)
    return _log_sums_and_positives(totals.rows, totals.columns)


def _small_pairs(products, scale, bound):
    pairs = Pairs(scale, matching="place")
    return _log_sums_and_positives(*gpu_pairs.small_pair_sums(products, pairs))


def _log_sums_and_positives(rows, columns):
    return rows[LOG_SUMS], columns[LOG_SUMS], rows[POSITIVES]


def _plain_sums(products, scale, bound):
    xp = namespace(products)
    logits = scale * products
    positives = xp.zeros_like(products[:, 0])
    diagonal = xp.linalg.diagonal(products)
    positives[: diagonal.shape[0]] = diagonal
    return log_sum_exp(logits, 1), log_sum_exp(logits, 0), positives


def _slopes(draw, n_rows, n_columns):
    made = _tile(draw, n_rows, n_columns)
    xp = namespace(made["products"])
    totals = PairTotals(n_rows, n_columns, Pairs(made["scale"]), made["bound"])
    totals.add(made["products"], 0, 0)
    wide = xp.astype(made["products"], xp.float64) * SCALE
    return made | {
        "results": (totals.rows, totals.columns),
        "log_sums": (log_sum_exp(wide, 1), log_sum_exp(wide, 0)),
        "upstream": (draw.normal(n_rows) / n_rows, draw.normal(n_columns) / n_columns),
        "out": xp.empty_like(made["products"]),
    }


def _pair_slopes(products, scale, bound, results, log_sums, upstream, out):
    del log_sums
    pairs = Pairs(scale)
    return (
        gpu_pairs.pair_slopes(
            products, pairs, bound, results, Upstream(*upstream), out=out
        ),
    )


def _plain_slopes(products, scale, bound, results, log_sums, upstream, out):
    del bound, results, out
    xp = namespace(products)
    of_rows, of_columns = (xp.astype(one, products.dtype) for one in log_sums)
    grad_rows, grad_columns = upstream
    logits = scale * products
    slopes = grad_rows[:, None] * xp.exp(logits - of_rows[:, None])
    slopes += grad_columns * xp.exp(logits - of_columns)
    return (scale * slopes,)


CASES = (
    *(
        Case(
            ("contrastive/pair_stats.cu",),
            PAIRS,
            sizes,
            SMALL,
            _tile,
            _pair_stats,
            _plain_sums,
            read_once,
            floor=ROUNDING,
        )
        for sizes in (TILE, LARGE)
    ),
    *(
        Case(
            ("contrastive/pair_grad.cu",),
            PAIRS,
            sizes,
            SMALL,
            _slopes,
            _pair_slopes,
            _plain_slopes,
            read_and_written,
            floor=ROUNDING,
        )
        for sizes in (TILE, LARGE)
    ),
    Case(
        ("contrastive/small_pairs.cu",),
        PAIRS,
        {"n_rows": 512, "n_columns": 512},
        SMALL,
        _tile,
        _small_pairs,
        _plain_sums,
        read_once,
        floor=ROUNDING,
    ),
)
