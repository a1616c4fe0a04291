"""Time of a training step and of a section, at the published sizes."""

import time
from dataclasses import replace

import numpy as np
import torch

from neuromm.core.spot_features import SpotFeatures
from neuromm.models import (
    GeneDML,
    GeneDMLConfig,
    gene_dml_losses,
    predict_expression,
)

N_SPOTS, N_GENES, REPEATS = 512, 250, 3


def step():
    """Seconds of a step with all losses, and with the prediction's alone, in turn."""
    config = replace(GeneDMLConfig.preset(), n_features=256, global_heads=8)
    plain = replace(config, instance_weight=0.0, group_weight=0.0)
    torch.manual_seed(0)
    model = GeneDML(config)
    inputs, expression = batch(config)
    best = {"all": np.inf, "plain": np.inf}
    for _ in range(1 + REPEATS):  # the first one warms up
        for name, one in (("all", config), ("plain", plain)):
            model.zero_grad()
            start = time.perf_counter()
            output = model(**inputs, expression=expression)
            gene_dml_losses(output, expression, one).total.backward()
            best[name] = min(best[name], time.perf_counter() - start)
    return {
        "seconds": round(best["all"], 3),
        "plain": round(best["plain"], 3),
        "ratio": round(best["all"] / best["plain"], 3),
        "n_features": config.n_features,
    }


def batch(config):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    side = int(np.ceil(N_SPOTS**0.5))
    place = torch.arange(N_SPOTS)
    return {
        "target": drawn(N_SPOTS, 1, config.n_features),
        "neighbors": drawn(N_SPOTS, 25, config.n_features),
        "overview": drawn(N_SPOTS, config.n_features),
        "grid": torch.stack([place // side, place % side], dim=1),
    }, drawn(N_SPOTS, N_GENES)


def section(n_spots=500):
    """Seconds to predict a section from features at hand."""
    rng = np.random.default_rng(0)
    wide = 1024
    place = np.arange(n_spots)
    features = SpotFeatures(
        section="A1",
        spots=np.array([str(one) for one in place]),
        target=rng.standard_normal((n_spots, 197, wide), dtype=np.float32),
        neighbors=rng.standard_normal((n_spots, 25, wide), dtype=np.float32),
        neighbor_mask=np.ones((n_spots, 25), dtype=bool),
        overview=rng.standard_normal((n_spots, wide), dtype=np.float32),
        grid=np.column_stack([place // 25, place % 25]),
        encoder="random numbers",
        is_stand_in=True,
    )
    model = GeneDML(GeneDMLConfig.preset())
    start = time.perf_counter()
    found = predict_expression(model, features, batch_size=64)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "n_spots": len(found.expression),
        "threads": torch.get_num_threads(),
    }
