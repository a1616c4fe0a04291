"""Section A1 of HER2ST: blocks of tissue left out, and random spots, the leak.

One patient cannot say how well expression is predicted in others. Spots of a block are
predicted from the other blocks, without the spots that touch it; random spots have
their neighbours in the training set, and look better for that reason alone.
"""

from dataclasses import replace

import numpy as np

from neuromm.core.spot_grid import microns_per_pixel
from neuromm.encoding import expression_probe, tissue_folds
from neuromm.features import load_backbone, spot_features
from neuromm.io import histology, load
from neuromm.metrics import expression_correlation
from neuromm.models import predict_expression
from neuromm.prepare.expression import expression
from neuromm.prepare.gene_panels import mean_panel

from . import planted
from .training import trained

SECTION, N_GENES, N_FOLDS = "A1", 50, 4
KINDS = ("blocks", "random")
_WIDTH_OF_PICTURE, _WIDTH_OF_SLIDE = 2000, 6954


def run(root, *, backbones, n_epochs):
    """PCC(A) of each fold: two linear probes and Gene-DML, on each backbone."""
    folder = root / "histology_st" / "her2st"
    adata = load(folder / "counts" / f"{SECTION}.tsv.gz").data
    slide = histology.load(
        folder / "images" / f"{SECTION}_{_WIDTH_OF_PICTURE}px.jpg",
        microns_per_pixel=microns_per_pixel(adata),
        scale=_WIDTH_OF_PICTURE / _WIDTH_OF_SLIDE,
    ).data
    result = {"n_spots": adata.n_obs, "n_genes": N_GENES, "backbones": {}}
    for name in backbones:
        features = spot_features(adata, slide, load_backbone(name), section=SECTION)
        result["backbones"][features.encoder] = {
            "is_stand_in": features.is_stand_in,
            **{kind: scores(adata, features, kind, n_epochs) for kind in KINDS},
        }
    return result


def scores(adata, features, kind, n_epochs):
    found = {name: [] for name in MODELS}
    found["n_constant"] = 0
    for fold in tissue_folds([features.grid], [SECTION], kind=kind, n_folds=N_FOLDS):
        train, test = fold.train[0], fold.test[0]
        panel = mean_panel({SECTION: adata[train]}, N_GENES)
        truth = np.asarray(expression(adata, panel).X, dtype=np.float64)
        centred = truth - truth[train].mean(axis=0)
        for name, predict in MODELS.items():
            predicted = predict(
                features.part(train), centred[train], features.part(test), n_epochs
            )
            one = expression_correlation(predicted, centred[test], np.zeros(len(test)))
            found[name].append(round(one.pcc, 4))
            found["n_constant"] += one.n_constant
    return found


def ridge(known, expression, unknown, _n_epochs):
    """Its penalties are chosen on blocks of the training spots."""
    return expression_probe([known], [expression], [SECTION], [unknown])[0]


def hest(known, expression, unknown, _n_epochs):
    given = ([known], [expression], [SECTION], [unknown])
    return expression_probe(*given, protocol="hest")[0]


def gene_dml(known, expression, unknown, n_epochs):
    config = replace(
        planted.VARIANTS["contrastive"],
        n_features=known.n_features,
        n_genes=expression.shape[1],
        neighbor_heads=2,
        global_heads=2,
    )
    mean, spread = known.overview.mean(axis=0), known.overview.std(axis=0) + 1e-6
    model = trained(
        config,
        [scaled(known, mean, spread)],
        [expression],
        n_epochs=n_epochs,
        batch_size=64,
        learning_rate=5e-4,
    )
    return predict_expression(model, scaled(unknown, mean, spread)).expression


def scaled(features, mean, spread):
    """Brought to a mean of 0 and a spread of 1 over the training spots."""
    return replace(
        features,
        **{
            name: ((getattr(features, name) - mean) / spread).astype(np.float32)
            for name in ("target", "neighbors", "overview")
        },
    )


MODELS = {"ridge": ridge, "hest": hest, "genedml": gene_dml}
