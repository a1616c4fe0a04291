"""Gene-DML: its losses written out, its scales apart, and nothing that leaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuromm.core import DataError, UsageError
from neuromm.models import GeneDML, GeneDMLConfig, gene_dml_losses
from neuromm.models.gene_dml.layers import (
    Layer,
    NeighborEncoder,
    PositionalGenerator,
)

SMALL = {
    "n_features": 8, "n_genes": 5, "dim": 6, "n_tiles": 3, "head_width": 7,
    "neighbor_depth": 2, "neighbor_heads": 2, "neighbor_mlp": 9, "global_depth": 2,
    "global_heads": 2, "global_mlp": 9, "fusion_mlp": 9, "n_groups": 3,
}  # fmt: skip


def model_and_inputs(n_spots=7, **changes):
    torch.manual_seed(0)
    model = GeneDML(GeneDMLConfig(**{**SMALL, **changes})).double()
    # Biases start at 0: with numbers of their own they are seen by a test.
    if hasattr(model, "neighbor_encoder"):
        torch.nn.init.normal_(model.neighbor_encoder.biases)
    rng = np.random.default_rng(1)
    inputs = {
        "target": rng.standard_normal((n_spots, 4, 8)),
        "neighbors": rng.standard_normal((n_spots, 9, 8)),
        "overview": rng.standard_normal((n_spots, 8)),
        "grid": np.column_stack([np.arange(n_spots) // 3, np.arange(n_spots) % 3]),
    }
    expression = torch.from_numpy(rng.standard_normal((n_spots, 5)))
    return model, {n: torch.from_numpy(v) for n, v in inputs.items()}, expression


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def soft_loss(gene, view, tau):
    """Section 1.4 b, letter by letter."""
    q, v = unit(gene), unit(view)
    logits = q @ v.T / tau
    target = np.exp(log_softmax((v @ v.T + q @ q.T) / (2 * tau)))
    forward = -(target * log_softmax(logits)).sum(axis=1)
    backward = -(target.T * log_softmax(logits.T)).sum(axis=1)
    return (forward + backward).mean() / 2


def k_means(rows, n_groups):
    """Ten iterations from the first rows; empty groups keep a zero centre."""
    centres = rows[:n_groups].copy()
    for _ in range(10):
        labels = ((rows[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.stack(
            [
                rows[labels == k].mean(axis=0) if (labels == k).any() else 0 * rows[0]
                for k in range(n_groups)
            ]
        )
    return labels, centres


def cross_entropy(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("group_space", ["projected", "paper"])
def test_losses_are_the_formulas_of_the_paper_and_of_its_code(group_space):
    model, inputs, expression = model_and_inputs(12, group_space=group_space)
    model.eval()
    output = model(**inputs, expression=expression)
    losses = gene_dml_losses(output, expression, model.config)

    def rows(tensor):
        return tensor.detach().numpy()

    gene, tau = rows(output.gene), model.config.temperature
    prediction = ((rows(output.expression) - expression.numpy()) ** 2).mean()
    views = [rows(v) for v in (output.target, output.neighbor, output.overview)]
    instance = np.mean([soft_loss(gene, view, tau) for view in views])
    weight = rows(model.group_projection.weight)
    bias = rows(model.group_projection.bias)
    u = unit(rows(output.fused) @ weight.T + bias)
    w = unit(gene @ weight.T + bias)
    (labels_u, centres_u), (labels_w, centres_w) = k_means(u, 3), k_means(w, 3)
    own = (rows(output.fused), unit(gene))
    if group_space == "projected":
        own, centres_u, centres_w = (u, w), unit(centres_u), unit(centres_w)
    tau_g = model.config.group_temperature
    group = (
        cross_entropy(own[0] @ centres_w.T / tau_g, labels_w)
        + cross_entropy(own[1] @ centres_u.T / tau_g, labels_u)
    ) / 2
    np.testing.assert_allclose(losses.prediction.item(), prediction, rtol=1e-10)
    np.testing.assert_allclose(losses.instance.item(), instance, rtol=1e-10)
    np.testing.assert_allclose(losses.group.item(), group, rtol=1e-10)
    np.testing.assert_allclose(
        losses.total.item(), prediction + instance + group, rtol=1e-10
    )


def test_weights_of_the_losses_are_settings():
    model, inputs, expression = model_and_inputs()
    output = model(**inputs, expression=expression)
    config = replace(model.config, instance_weight=0.5, group_weight=0.0)
    losses = gene_dml_losses(output, expression, config)
    assert losses.group == 0
    torch.testing.assert_close(losses.total, losses.prediction + 0.5 * losses.instance)
    few = model(**{n: v[:2] for n, v in inputs.items()}, expression=expression[:2])
    # Fewer spots than groups: as many groups as spots.
    assert gene_dml_losses(few, expression[:2], model.config).group.isfinite()


def test_expression_does_not_reach_what_is_predicted():
    model, inputs, expression = model_and_inputs()
    model.eval()
    plain = model(**inputs)
    assert plain.gene is None
    for given in (expression, -3 * expression):
        told = model(**inputs, expression=given)
        assert torch.equal(told.expression, plain.expression)
        assert torch.equal(told.fused, plain.fused)
    with pytest.raises(UsageError, match="called with expression"):
        gene_dml_losses(plain, expression, model.config)


def test_a_tile_outside_of_the_slide_changes_nothing_and_one_inside_does():
    model, inputs, _ = model_and_inputs()
    model.eval()
    mask = torch.ones(7, 9, dtype=torch.bool)
    mask[:, [0, 8]] = False
    before = model(**inputs, neighbor_mask=mask)
    outside = {**inputs, "neighbors": inputs["neighbors"].clone()}
    outside["neighbors"][:, [0, 8]] = 1e3
    after = model(**outside, neighbor_mask=mask)
    torch.testing.assert_close(after.expression, before.expression, rtol=0, atol=1e-12)
    outside["neighbors"][:, 3, 0] += 1  # not of all features: LayerNorm takes that
    moved = model(**outside, neighbor_mask=mask)
    assert (moved.expression - before.expression).abs().min() > 0


def test_the_middle_tile_sees_its_four_sides_alike():
    """The bias knows distances in rows and columns, not directions."""
    torch.manual_seed(0)
    encoder = NeighborEncoder(8, 3, 1, 2, 9, 0.0).double()
    torch.nn.init.normal_(encoder.biases)
    tiles = torch.randn(1, 9, 8, dtype=torch.float64)
    turned = tiles.reshape(1, 3, 3, 8).flip(1, 2).reshape(1, 9, 8)
    middle = encoder(tiles, None)[0, 4]
    torch.testing.assert_close(encoder(turned, None)[0, 4], middle)
    swapped = tiles[:, [1, 0, *range(2, 9)]]  # a corner with a side
    assert (encoder(swapped, None)[0, 4] - middle).abs().max() > 1e-6


def test_places_enter_as_a_convolution_over_the_array():
    torch.manual_seed(0)
    generator = PositionalGenerator(3).double()
    grid = torch.tensor([[5, 2], [5, 3], [6, 2], [8, 9]])
    tokens = torch.randn(4, 3, dtype=torch.float64)
    expected = tokens.clone()
    kernel, bias = generator.conv.weight[:, 0], generator.conv.bias
    for spot, (row, column) in enumerate(grid.tolist()):
        expected[spot] = expected[spot] + bias
        for other, (r, c) in enumerate(grid.tolist()):
            if abs(r - row) <= 1 and abs(c - column) <= 1:
                weight = kernel[:, r - row + 1, c - column + 1]
                expected[spot] = expected[spot] + weight * tokens[other]
    torch.testing.assert_close(generator(tokens, grid), expected)
    torch.testing.assert_close(generator(tokens, grid + 40), expected)
    with pytest.raises(DataError, match="the same row and column"):
        generator(tokens, grid[[0, 1, 1, 3]])


def test_sections_of_a_batch_do_not_see_each_other():
    model, inputs, _ = model_and_inputs(8)
    model.eval()
    section = torch.tensor([4, 4, 4, 9, 9, 9, 9, 9])
    rows = torch.tensor([5, 0, 2])
    picked = {n: inputs[n][rows] for n in ("target", "neighbors")}
    both = model(
        **picked, overview=inputs["overview"], grid=inputs["grid"], section=section,
        rows=rows,
    )  # fmt: skip
    alone = model(
        **{n: v[1:] for n, v in picked.items()}, overview=inputs["overview"][:3],
        grid=inputs["grid"][:3], rows=rows[1:],
    )  # fmt: skip
    torch.testing.assert_close(both.expression[1:], alone.expression)


def test_readouts_weigh_scales_or_tokens():
    model, inputs, _ = model_and_inputs()
    model.eval()
    by_scale = model(**inputs)
    means = torch.stack([by_scale.target, by_scale.neighbor, by_scale.overview])
    torch.testing.assert_close(by_scale.fused, means.mean(dim=0))
    model.config = replace(model.config, readout="token_mean")
    by_token = model(**inputs)
    sizes = torch.tensor([4.0, 9.0, 1.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(by_token.fused, (means * sizes).sum(dim=0) / 14)


def test_one_head_has_no_projection_and_queries_have_no_bias():
    names = {name for name, _ in Layer(8, 1, 16, 0.1).named_parameters()}
    assert "qkv.weight" in names
    assert not any(name.startswith(("out.", "qkv.bias")) for name in names)
    assert "out.0.bias" in {n for n, _ in Layer(8, 2, 16, 0.1).named_parameters()}


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_the_published_sizes():
    """Counted by hand: what each module must have at UNI's 1024 features."""
    with torch.device("meta"):
        model = GeneDML(GeneDMLConfig.preset("as_released", "her2st"))

    def layer(dim, heads, mlp):
        projection = dim * dim + dim if heads > 1 else 0
        mlp_size = dim * mlp + mlp + mlp * dim + dim
        return 4 * dim + 3 * dim * dim + projection + mlp_size

    assert n_parameters(model.neighbor_encoder) == (
        4 * layer(1024, 4, 4096) + 2 * 1024 + 4 * 4 * 25
    )
    assert n_parameters(model.global_encoder) == (
        5 * layer(1024, 8, 4096) + 2 * 1024 + 1024 * 9 + 1024
    )
    assert n_parameters(model.projection) == 1024 * 512 + 512
    assert n_parameters(model.fusion) == layer(512, 1, 1024)
    wide = 512 * 1024 + 1024 + 1024 * 512 + 512
    assert n_parameters(model.fusion_mlp) == wide
    assert n_parameters(model.gene_encoder) == (
        250 * 512 + 512 + 512 * 512 + 512 + 2 * 512 + wide
    )
    assert n_parameters(model.head) == (
        512 * 1536 + 1536 + 1536 * 512 + 512 + 512 * 250 + 250
    )
    assert n_parameters(model.group_projection) == 512 * 512 + 512
    assert n_parameters(model.scale_heads) == 3 * (512 * 512 + 512 + 512 * 250 + 250)


def test_presets_differ_where_the_released_code_is_wrong():
    corrected, released = (
        GeneDMLConfig.preset(name, "stnet") for name in ("corrected", "as_released")
    )
    assert (corrected.n_groups, corrected.global_depth) == (90, 3)
    assert released == replace(
        corrected, readout="token_mean", group_space="paper", scale_heads=True
    )
    assert GeneDMLConfig.preset() == GeneDMLConfig()
    with pytest.raises(UsageError, match="corrected, as_released"):
        GeneDMLConfig.preset("other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tiles": 4}, "n_tiles must be odd"),
        ({"neighbor_heads": 3}, "neighbor_heads must divide n_features=1024"),
        ({"scales": ("neighbor",)}, "scales must be target"),
        ({"scales": ("target", "global", "neighbor")}, "in this order"),
        ({"readout": "sum"}, "readout must be one of scale_mean, token_mean"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"global_dropout": 1.0}, r"global_dropout must be in \[0, 1\)"),
        ({"n_genes": 0}, "n_genes must be at least 1"),
        ({"group_weight": -1.0}, "group_weight must be 0 or above"),
    ],
)
def test_a_setting_that_cannot_be_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        GeneDMLConfig(**changes)


def test_shapes_that_do_not_match_are_named():
    model, inputs, _ = model_and_inputs()
    for name, value, message in (
        ("target", inputs["target"][:, 0], "target must have shape"),
        ("neighbors", inputs["neighbors"][:, :8], r"neighbors must have shape \(7, 9"),
        ("overview", inputs["overview"][:, :7], "overview must have shape"),
        ("grid", inputs["grid"][:6], "grid a row for each"),
    ):
        with pytest.raises(UsageError, match=message):
            model(**{**inputs, name: value})
    with pytest.raises(UsageError, match="rows must say for each of 7 spots"):
        model(**inputs, rows=torch.arange(3))


@pytest.mark.parametrize("scales", [("target",), ("target", "global")])
def test_a_scale_that_is_left_out_is_not_read(scales):
    model, inputs, expression = model_and_inputs(scales=scales)
    model.eval()
    before = model(**inputs, expression=expression)
    changed = {**inputs, "neighbors": inputs["neighbors"].flip(0)}
    if "global" not in scales:
        changed["overview"] = inputs["overview"].flip(0)
    after = model(**changed, expression=expression)
    assert torch.equal(before.expression, after.expression)
    assert before.neighbor is None
    assert gene_dml_losses(after, expression, model.config).total.isfinite()
