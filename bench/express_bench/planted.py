"""Scales and contrastive losses on sections whose truth is known."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import normalize

from neuromm.encoding import expression_probe
from neuromm.metrics import expression_correlation
from neuromm.models import GeneDMLConfig, predict_expression
from neuromm.simulate import make_tissue_sections

from .training import trained

N_TRAINING, N_TEST = 10, 3
BEST = 10  # a spot's expression among so many of its section counts as found

CONFIG = GeneDMLConfig(
    n_features=32, n_genes=30, dim=64, neighbor_depth=1, neighbor_heads=4,
    neighbor_mlp=64, neighbor_dropout=0.1, global_depth=2, global_heads=4,
    global_mlp=64, global_dropout=0.1, fusion_mlp=128, head_width=128, n_groups=12,
    instance_weight=0.0, group_weight=0.0,
)  # fmt: skip
VARIANTS = {
    "target": replace(CONFIG, scales=("target",)),
    "neighbor": replace(CONFIG, scales=("target", "neighbor")),
    "global": CONFIG,
    "contrastive": replace(CONFIG, instance_weight=0.03, group_weight=0.03),
}


def scales(seed, n_epochs, names=tuple(VARIANTS)):
    """Correlation, and retrieval of expression, of each variant and of two ridges."""
    features, expression = drawn(seed)
    result = {
        name: scored(VARIANTS[name], features, expression, seed, n_epochs)
        for name in names
    }
    patches = [alone(own) for own in features]
    result["ridge"] = {"pcc": ridge(patches, expression)}
    result["ridge around"] = {"pcc": ridge(features, expression)}
    return result


def shuffled(seed, n_epochs):
    """Correlation where there is none, and where surroundings are of other spots."""
    features, expression = drawn(seed)
    rng = np.random.default_rng([seed, 1])
    orders = [rng.permutation(len(values)) for values in expression]
    mixed = [values[order] for values, order in zip(expression, orders, strict=True)]
    nothing = scored(VARIANTS["neighbor"], features, mixed, seed, n_epochs)
    apart = [
        replace(own, neighbors=_others(own, order), overview=own.overview)
        for own, order in zip(features, orders, strict=True)
    ]
    elsewhere = scored(VARIANTS["neighbor"], apart, expression, seed, n_epochs)
    target = scored(VARIANTS["target"], features, expression, seed, n_epochs)
    return {
        "expression": nothing["pcc"],
        "coordinates": elsewhere["pcc"],
        "target": target["pcc"],
        "n_spots": N_TEST * len(expression[0]),
    }


def drawn(seed):
    """Features and centred log expression, sections of training first."""
    sections = make_tissue_sections(N_TRAINING + N_TEST, rng=seed)
    expression = [np.log1p(section.counts) for section in sections]
    mean = np.concatenate(expression[:N_TRAINING]).mean(axis=0)
    return [s.features for s in sections], [values - mean for values in expression]


def scored(config, features, expression, seed, n_epochs):
    model = trained(
        config,
        features[:N_TRAINING],
        expression[:N_TRAINING],
        n_epochs=n_epochs,
        batch_size=144,
        learning_rate=2e-3,
        seed=seed,
    )
    tests = list(zip(features[N_TRAINING:], expression[N_TRAINING:], strict=True))
    found = [predict_expression(model, own) for own, _ in tests]
    scores = expression_correlation(
        np.concatenate([one.expression for one in found]),
        np.concatenate([truth for _, truth in tests]),
        np.repeat([own.section for own, _ in tests], [len(t) for _, t in tests]),
    )
    hits = [
        retrieved(model, one.fused, truth)
        for one, (_, truth) in zip(found, tests, strict=True)
    ]
    return {"pcc": round(scores.pcc, 4), "retrieval": round(float(np.mean(hits)), 4)}


def retrieved(model, fused, expression):
    """Share of spots whose expression is among the nearest ten of the section."""
    with torch.inference_mode():
        gene = model.gene_encoder(torch.from_numpy(expression.astype(np.float32)))
    similar = normalize(torch.from_numpy(fused), dim=1) @ normalize(gene, dim=1).T
    rank = (similar >= similar.diagonal()[:, None]).sum(dim=1)
    return float((rank <= BEST).double().mean())


def ridge(features, expression):
    """The linear baseline, each section a patient of its own."""
    predicted = expression_probe(
        features[:N_TRAINING],
        expression[:N_TRAINING],
        range(N_TRAINING),
        features[N_TRAINING:],
    )
    scores = expression_correlation(
        np.concatenate(predicted),
        np.concatenate(expression[N_TRAINING:]),
        np.repeat(range(N_TEST), [len(one) for one in predicted]),
    )
    return round(scores.pcc, 4)


def alone(own):
    """The patch of each spot without the tiles around it."""
    return replace(
        own,
        neighbors=own.overview[:, None],
        neighbor_mask=np.ones((own.n_spots, 1), dtype=bool),
    )


def _others(own, order):
    """Tiles of another spot around each spot; the middle one stays its own."""
    tiles = own.neighbors[order].copy()
    middle = tiles.shape[1] // 2
    tiles[:, middle] = own.neighbors[:, middle]
    return tiles
