"""Kernels of contrastive losses beside the arrays of pairs they replace.

Most take a tile of products, which cuBLAS has made before, and are timed alone.
"""

from kernel_bench.case import Case
from neuromm.kernels import gpu_siglip, gpu_soft_pairs
from neuromm.kernels.arrays import namespace

SCALE = 1 / 0.07
# What one rounding of the largest logit changes its term by, relative to the term.
ROUNDING = SCALE * 2.0**-23
_WIDTH = 64  # of rows whose cosines fill a tile


def log_sum_exp(x, axis):
    if hasattr(x, "logsumexp"):  # torch
        return x.logsumexp(dim=axis)
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    total = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True))
    return xp.squeeze(top + total, axis=axis)


def _softmax(x, axis):
    if hasattr(x, "softmax"):  # torch
        return x.softmax(dim=axis)
    xp = namespace(x)
    terms = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return terms / xp.sum(terms, axis=axis, keepdims=True)


def cosines(draw, n_rows, n_columns):
    return draw.unit(n_rows, _WIDTH) @ draw.unit(n_columns, _WIDTH).T


def _biased_tile(draw, n_rows, n_columns):
    products = cosines(draw, n_rows, n_columns)
    return {
        "products": products, "scale": draw.number(10.0), "bias": draw.number(-10.0),
    }  # fmt: skip


def _softplus(products, scale, bias):
    xp = namespace(products)
    totals = xp.zeros((2,), dtype=xp.float64, device=products.device)
    gpu_siglip.add_softplus(products, scale, bias, totals)
    return totals, products


def _plain_softplus(products, scale, bias):
    xp = namespace(products)
    logits = scale * products + bias
    terms = xp.maximum(logits, 0 * logits) + xp.log1p(xp.exp(-xp.abs(logits)))
    products[:] = 1 / (1 + xp.exp(-logits))
    sums = [xp.sum(one, dtype=xp.float64) for one in (terms, products)]
    return xp.stack(sums), products


def _panel(draw, n_rows, n_columns):
    gene, image = (draw.unit(n_columns, _WIDTH) for _ in range(2))
    own = gene[:n_rows], image[:n_rows]
    return {
        "products": own[0] @ image.T,
        "similarity": own[0] @ gene.T + own[1] @ image.T,
        "scale": draw.number(SCALE),
        "target_scale": draw.number(SCALE),
    }


def _soft_sums(products, similarity, scale, target_scale):
    state = gpu_soft_pairs.start_columns(products.shape[1], products)
    rows = gpu_soft_pairs.add_panel(products, similarity, scale, target_scale, state)
    return rows[5], rows[4], gpu_soft_pairs.columns_of(state, "float64")[2], state[2]


def _plain_soft_sums(products, similarity, scale, target_scale):
    xp = namespace(products)
    logits = scale * products
    targets = _softmax(target_scale * similarity / 2, 1)
    crosses = xp.sum(targets * logits, axis=1)
    weights = xp.sum(targets, axis=0)
    return log_sum_exp(logits, 1), crosses, log_sum_exp(logits, 0), weights


def _panel_with_sums(draw, n_rows, n_columns):
    made = _panel(draw, n_rows, n_columns)
    state = gpu_soft_pairs.start_columns(n_columns, made["products"])
    rows = gpu_soft_pairs.add_panel(**made, state=state)
    columns = gpu_soft_pairs.columns_of(state, "float32")
    return made | {"rows": rows, "columns": columns, "factor": draw.number(1 / n_rows)}


def _soft_slopes(products, similarity, scale, target_scale, rows, columns, factor):
    found = gpu_soft_pairs.panel_slopes(
        products, similarity, scale, target_scale, rows, columns, factor,
        in_place=False,
    )  # fmt: skip
    return found[:2]


def _plain_soft_slopes(
    products, similarity, scale, target_scale, rows, columns, factor
):
    del rows, columns
    xp = namespace(products)
    logits = scale * products
    targets = _softmax(target_scale * similarity / 2, 1)
    of_logits = _softmax(logits, 1) - 2 * targets
    of_logits += xp.sum(targets, axis=0) * _softmax(logits, 0)
    excess = log_sum_exp(logits, 0) - 2 * logits
    excess = excess - xp.sum(targets * excess, axis=1)[:, None]
    of_targets = targets * excess
    return factor * scale * of_logits, factor * target_scale / 2 * of_targets


TILE = {"n_rows": 2048, "n_columns": 4096}  # as the losses make them
LARGE = {"n_rows": 8192, "n_columns": 8192}
SMALL = {"n_rows": 33, "n_columns": 129}
PAIRS = "{n_rows} x {n_columns} products"


def read_once(n_rows, n_columns):
    return 4 * n_rows * n_columns


def read_and_written(n_rows, n_columns):
    return 8 * n_rows * n_columns


CASES = (
    *(
        Case(
            ("contrastive/siglip.cu",),
            PAIRS,
            sizes,
            SMALL,
            _biased_tile,
            _softplus,
            _plain_softplus,
            read_and_written,
            changed=("products",),
            floor=ROUNDING,
        )
        for sizes in (TILE, LARGE)
    ),
    Case(
        ("contrastive/soft_target.cu",),
        "{n_rows} x {n_columns} products, sums",
        TILE,
        {"n_rows": 33, "n_columns": 65},
        _panel,
        _soft_sums,
        _plain_soft_sums,
        lambda n_rows, n_columns: 8 * n_rows * n_columns,
        floor=ROUNDING,
    ),
    Case(
        ("contrastive/soft_target.cu",),
        "{n_rows} x {n_columns} products, slopes",
        {"n_rows": 4096, "n_columns": 4096},
        {"n_rows": 65, "n_columns": 65},
        _panel_with_sums,
        _soft_slopes,
        _plain_soft_slopes,
        lambda n_rows, n_columns: 16 * n_rows * n_columns,
        floor=ROUNDING,
    ),
)
