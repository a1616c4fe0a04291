"""The losses as neuromm has them and as others write them, on unnormalised rows.

A form takes leaves and returns a loss and its gradients, as a training step needs them.
All are written here from the papers, in plain torch.
"""

import torch
from torch.nn.functional import cross_entropy, logsigmoid, normalize
from torch.utils.checkpoint import checkpoint

from neuromm.losses import gram_volume, info_nce, multi_level_contrastive, siglip

TAU = 0.07
_CHUNK_ROWS = 512


def eager_clip(a, b):
    """Symmetric InfoNCE as open_clip has it: two products, two cross-entropies."""
    a, b = normalize(a), normalize(b)
    match = torch.arange(len(a))
    by_row = cross_entropy(a @ b.T / TAU, match)
    return (by_row + cross_entropy(b @ a.T / TAU, match)) / 2


def one_product_clip(a, b):
    """The matrix of logits once, read along rows and along columns."""
    logits = normalize(a) @ normalize(b).T / TAU
    match = torch.arange(len(a))
    return (cross_entropy(logits, match) + cross_entropy(logits.T, match)) / 2


def chunked_clip(a, b):
    """Rows in chunks, each made again in the backward."""

    def one(rows, others, start):
        match = torch.arange(start, start + len(rows))
        return cross_entropy(rows @ others.T / TAU, match, reduction="sum")

    a, b = normalize(a), normalize(b)
    total, start = 0.0, 0
    for of_a, of_b in zip(a.split(_CHUNK_ROWS), b.split(_CHUNK_ROWS), strict=True):
        for rows, others in ((of_a, b), (of_b, a)):
            total = total + checkpoint(one, rows, others, start, use_reentrant=False)
        start += len(of_a)
    return total / (2 * len(a))


def eager_levels(gene, *levels):
    """Gene-DML's instance loss: soft targets made of both modalities."""
    gene, losses = normalize(gene), []
    for rows in levels:
        image = normalize(rows)
        logits = gene @ image.T / TAU
        target = ((image @ image.T + gene @ gene.T) / (2 * TAU)).softmax(dim=-1)
        by_gene = (-target * logits.log_softmax(dim=-1)).sum(dim=1)
        by_image = (-target.T * logits.T.log_softmax(dim=-1)).sum(dim=1)
        losses.append(((by_gene + by_image) / 2).mean())
    return sum(losses) / len(losses)


def eager_siglip(a, b):
    logits = normalize(a) @ normalize(b).T / TAU - 10
    sign = 2 * torch.eye(len(a), dtype=a.dtype) - 1
    return -logsigmoid(sign * logits).sum() / len(a)


def stacked_determinants(anchor, *others):
    """GRAM's volume loss: a tensor of all Gram matrices, and its determinants."""
    first, units = normalize(anchor), [normalize(rows) for rows in others]
    n = len(first)
    cross = [first @ unit.T for unit in units]
    rows = [torch.stack([torch.ones_like(cross[0]), *cross], dim=-1)]
    for unit, own in zip(units, cross, strict=True):
        inner = [(unit * other).sum(1).expand(n, n) for other in units]
        rows.append(torch.stack([own, *inner], dim=-1))
    volume = torch.stack(rows, dim=-2).det().abs().clamp_min(1e-6).sqrt()
    logits, match = -volume / TAU, torch.arange(n)
    return (cross_entropy(logits, match) + cross_entropy(logits.T, match)) / 2


FORMS = {
    "clip": {
        "neuromm": lambda a, b: info_nce(a, b, TAU),
        "eager": eager_clip,
        "compile": eager_clip,
        "chunked": chunked_clip,
        "gradcache": one_product_clip,
    },
    "siglip": {
        "neuromm": lambda a, b: siglip(a, b, TAU),
        "eager": eager_siglip,
        "compile": eager_siglip,
    },
    "levels": {
        "neuromm": lambda gene, *levels: multi_level_contrastive(gene, levels, TAU),
        "eager": eager_levels,
        "compile": eager_levels,
    },
    "gram": {
        "neuromm": lambda anchor, *others: gram_volume(anchor, others, TAU, 0.0),
        "eager": stacked_determinants,
    },
}
# Definitions, which float64 rows make the truth.
EXACT = {
    "clip": chunked_clip,
    "siglip": eager_siglip,
    "levels": eager_levels,
    "gram": stacked_determinants,
}
# What a table calls them.
TITLES = {
    "clip": "Symmetric InfoNCE",
    "siglip": "SigLIP",
    "levels": "Gene-DML, three levels",
    "gram": "GRAM volume, three others",
}
NAMES = {
    "neuromm": "neuromm",
    "eager": "eager",
    "compile": "torch.compile of eager",
    "chunked": "chunks with checkpoints",
    "gradcache": "GradCache's loss",
}
# Forms that hold a matrix of all pairs, or several.
QUADRATIC = ("eager", "compile", "gradcache")


def step(form, leaves):
    """Loss and gradients."""
    loss = form(*leaves)
    return loss.detach(), torch.autograd.grad(loss, leaves)


def leaves_of(loss, n_samples, width, dtype=torch.float32):
    """Row sets with a part in common; the same numbers whatever the precision."""
    generator = torch.Generator().manual_seed(0)
    n_sets = 2 if loss in ("clip", "siglip") else 4
    sets = [torch.randn((n_samples, width), generator=generator) for _ in range(n_sets)]
    for rows in sets[1:]:
        rows.add_(sets[0], alpha=0.3)
    return [rows.to(dtype).requires_grad_(True) for rows in sets]
