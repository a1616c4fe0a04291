"""Section A1 of HER2ST: blocks of tissue left out, and random spots, the leak.

One patient cannot say how well expression is predicted in others. Spots of a block are
predicted from the other blocks, without the spots that touch it; random spots have
their neighbours in the training set, and look better for that reason alone.
"""

from dataclasses import replace

import numpy as np
import torch

from neuromm.core.spot_grid import microns_per_pixel
from neuromm.encoding import RidgeCV
from neuromm.features import load_backbone, spot_features
from neuromm.io import histology, load
from neuromm.metrics import expression_correlation
from neuromm.models import GeneDML, predict_expression
from neuromm.prepare.expression import expression
from neuromm.prepare.gene_panels import mean_panel
from neuromm.training import ExpressionTask, TissueSpots, TrainingConfig, fit

from . import planted

SECTION, N_GENES, N_FOLDS = "A1", 50, 4
_WIDTH_OF_PICTURE, _WIDTH_OF_SLIDE = 2000, 6954


def run(root, *, backbone, n_epochs):
    """PCC(A) of a ridge and of Gene-DML, by blocks and by random spots."""
    adata, features = section(root, backbone)
    result = {
        "backbone": features.encoder,
        "is_stand_in": features.is_stand_in,
        "n_spots": features.n_spots,
        "n_genes": N_GENES,
    }
    for kind, folds in (
        ("blocks", blocks(features.grid)),
        ("random", scattered(features.n_spots)),
    ):
        for name, predict in (("ridge", ridge), ("genedml", gene_dml)):
            scores = []
            for train, test in folds:
                panel = mean_panel({SECTION: adata[train]}, N_GENES)
                truth = np.asarray(expression(adata, panel).X, dtype=np.float64)
                centred = truth - truth[train].mean(axis=0)
                found = predict(features, centred, train, test, n_epochs)
                scores.append(
                    expression_correlation(found, centred[test], np.zeros(len(test)))
                )
            result[f"{name} {kind}"] = round(float(np.mean([s.pcc for s in scores])), 4)
            result["n_constant"] = int(sum(s.n_constant for s in scores))
    return result


def section(root, backbone):
    folder = root / "histology_st" / "her2st"
    adata = load(folder / "counts" / f"{SECTION}.tsv.gz").data
    slide = histology.load(
        folder / "images" / f"{SECTION}_{_WIDTH_OF_PICTURE}px.jpg",
        microns_per_pixel=microns_per_pixel(adata),
        scale=_WIDTH_OF_PICTURE / _WIDTH_OF_SLIDE,
    ).data
    features = spot_features(adata, slide, load_backbone(backbone), section=SECTION)
    # Colours of one picture: brought to a mean of 0 and a spread of 1 over its spots.
    mean = features.overview.mean(axis=0)
    spread = features.overview.std(axis=0) + 1e-6
    scaled = {
        name: ((getattr(features, name) - mean) / spread).astype(np.float32)
        for name in ("target", "neighbors", "overview")
    }
    return adata, replace(features, **scaled)


def blocks(grid):
    """Quarters of the section; spots that touch one are in no training set of it."""
    row, column = (grid - np.median(grid, axis=0) > 0).T
    quarter = 2 * row + column
    folds = []
    for one in range(N_FOLDS):
        test = np.flatnonzero(quarter == one)
        apart = np.abs(grid[:, None] - grid[test]).max(axis=2).min(axis=1)
        folds.append((np.flatnonzero(apart > 1), test))
    return folds


def scattered(n_spots):
    order = np.random.default_rng(0).permutation(n_spots)
    return [
        (np.setdiff1d(order, order[one::N_FOLDS]), np.sort(order[one::N_FOLDS]))
        for one in range(N_FOLDS)
    ]


def ridge(features, truth, train, test, _n_epochs):
    """Of the patch and the mean of the tiles around it."""
    x = np.hstack([features.overview, features.neighbors.mean(axis=1)])
    model = RidgeCV(alphas=np.geomspace(1, 1e6, 13), cv=5)
    return model.fit(x[train].astype(np.float64), truth[train]).predict(x[test])


def gene_dml(features, truth, train, test, n_epochs):
    config = replace(
        planted.VARIANTS["contrastive"],
        n_features=features.n_features,
        n_genes=truth.shape[1],
        neighbor_heads=2,
        global_heads=2,
    )
    torch.manual_seed(0)
    model = GeneDML(config)
    known = TissueSpots([part(features, train)], [truth[train]])
    training = TrainingConfig(
        n_epochs=n_epochs,
        batch_size=64,
        learning_rate=5e-4,
        weight_decay=1e-2,
        schedule="cosine",
        validation_fraction=0,
    )
    task = ExpressionTask(known, config)
    fit(model, known, training, task=task, groups=range(len(known)))
    return predict_expression(model, part(features, test)).expression


def part(features, rows):
    """Some spots of a section, as a section of their own."""
    names = (
        "spots", "target", "neighbors", "neighbor_mask", "overview", "grid",
    )  # fmt: skip
    return replace(features, **{name: getattr(features, name)[rows] for name in names})
