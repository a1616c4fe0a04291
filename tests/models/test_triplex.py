"""TRIPLEX: what its loss is made of, and what its fusion may see."""

import numpy as np
import pytest
import torch

from neuromm.core import UsageError
from neuromm.models import (
    TRIPLEX,
    TRIPLEXConfig,
    predict_expression,
    triplex_loss,
)
from neuromm.models.gene_dml.layers import CrossLayer
from neuromm.simulate import make_tissue_sections
from neuromm.training import ExpressionTask, TissueSpots, TrainingConfig, fit

CONFIG = TRIPLEXConfig(
    n_features=16, n_genes=8, dim=16, neighbor_depth=1, neighbor_heads=2,
    global_depth=1, global_heads=2, fusion_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def sections():
    return make_tissue_sections(4, side=6, n_genes=8, n_features=16, rng=0)


def inputs(section):
    own = section.features
    return {
        "target": torch.from_numpy(own.target),
        "neighbors": torch.from_numpy(own.neighbors),
        "overview": torch.from_numpy(own.overview),
        "grid": torch.from_numpy(own.grid),
    }


def test_the_loss_is_an_error_of_each_scale_and_its_distance_from_the_fusion(sections):
    torch.manual_seed(0)
    model = TRIPLEX(CONFIG).eval()
    output = model(**inputs(sections[0]))
    truth = torch.from_numpy(np.log1p(sections[0].counts)).float()
    fused = output.expression.detach().numpy()

    def error(a, b):
        return ((np.asarray(a, dtype=float) - np.asarray(b, dtype=float)) ** 2).mean()

    expected = error(fused, truth)
    for scale in (output.target, output.neighbor, output.overview):
        own = scale.detach().numpy()
        expected += 0.7 * error(own, truth) + 0.3 * error(own, fused)
    assert triplex_loss(output, truth, CONFIG).item() == pytest.approx(expected, 1e-6)
    assert output.expression.min() >= 0


def test_one_token_looks_at_others_by_attention_written_out():
    torch.manual_seed(0)
    layer = CrossLayer(8, 2, 16, 0.1).double().eval()
    token, seen = torch.randn(1, 8).double(), torch.randn(1, 5, 8).double()
    shown = torch.tensor([[True, True, False, True, True]])
    q = layer.query(layer.norm(token))[0].reshape(2, 4)
    k, v = layer.key_value(layer.norm(seen))[0].reshape(5, 2, 2, 4).unbind(1)
    found = []
    for head in range(2):
        logits = torch.stack([q[head] @ k[i, head] / 2 for i in (0, 1, 3, 4)])
        weights = logits.softmax(0)
        found.append(
            sum(w * v[i, head] for w, i in zip(weights, (0, 1, 3, 4), strict=True))
        )
    expected = token + layer.out(torch.cat(found)[None])
    expected = expected + layer.mlp(layer.mlp_norm(expected))
    torch.testing.assert_close(layer(token, seen, shown), expected)


def test_tiles_outside_of_the_slide_change_nothing(sections):
    torch.manual_seed(0)
    model = TRIPLEX(CONFIG).eval()
    given = inputs(sections[0])
    mask = torch.ones(36, 25, dtype=torch.bool)
    mask[:, :5] = False
    before = model(**given, neighbor_mask=mask)
    given["neighbors"] = given["neighbors"].clone()
    given["neighbors"][:, :5] = 100.0
    after = model(**given, neighbor_mask=mask)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_it_is_trained_and_predicts_as_gene_dml_does(sections):
    expression = [np.log1p(section.counts) for section in sections]
    spots = TissueSpots([section.features for section in sections[:3]], expression[:3])
    torch.manual_seed(0)
    model = TRIPLEX(CONFIG)
    untrained = predict_expression(model, sections[3].features).expression
    fit(
        model,
        spots,
        TrainingConfig(n_epochs=4, batch_size=36, learning_rate=5e-3,
                       validation_fraction=0),
        task=ExpressionTask(spots, CONFIG),
        groups=range(len(spots)),
    )  # fmt: skip
    trained = predict_expression(model, sections[3].features).expression
    errors = [np.square(one - expression[3]).mean() for one in (untrained, trained)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion_heads": 3}, "fusion_heads must divide dim=512"),
        ({"teaching": 1.5}, r"teaching must be in \[0, 1\]"),
        ({"global_depth": 0}, "global_depth must be at least 1"),
        ({"neighbor_dropout": 1.0}, "neighbor_dropout must be in"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        TRIPLEXConfig(**changes)
