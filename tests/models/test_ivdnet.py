"""The network is that of the paper, and its variants are what they claim to be."""

import pytest
import torch

from neuromm.core import DataError, UsageError
from neuromm.models import IVDNet, IVDNetConfig
from neuromm.models.inception_blocks import folded


def network(seed: int = 0, **settings) -> IVDNet:
    torch.manual_seed(seed)
    return IVDNet(IVDNetConfig(**{"width": 2, **settings}))


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("width", "expected"),
    [(32, 54_313_954), (16, 13_605_874), (8, 3_415_162), (4, 860_638)],
)
def test_parameters_are_as_many_as_those_of_the_paper(width, expected):
    with torch.device("meta"):  # counts without the memory
        model = IVDNet(IVDNetConfig(width=width))
    assert n_parameters(model) == expected


def test_each_path_reads_the_channels_of_the_table():
    model = network(width=2)
    for level, multiple in enumerate((None, 4, 12, 28)):
        expected = 1 if multiple is None else multiple * 2
        assert len(model.encoder[level]) == 4
        for path in model.encoder[level]:
            assert path.first.conv.in_channels == expected
            assert path.last.conv.out_channels == 2 * 2**level
    assert model.bridge.first.conv.in_channels == 60 * 2
    assert model.bridge.last.conv.out_channels == 16 * 2


@pytest.mark.parametrize("n_modalities", [1, 2, 3, 5])
def test_any_number_of_modalities_follows_the_general_rule(n_modalities):
    """in_{l+1} = M out_l + in'_l, with in'_1 = 0."""
    config = IVDNetConfig(n_modalities=n_modalities, width=3)
    dense, expected = 0, [1]
    for level in range(4):
        dense += n_modalities * 3 * 2**level
        expected.append(dense)
    assert list(config.in_channels) == expected


@pytest.mark.parametrize(
    ("settings", "sides"),
    [
        ({}, (32, 48)),
        ({"dense_skip": "crop"}, (32, 48)),
        ({"fusion": "early"}, (32, 16)),
        ({"fusion": "late"}, (32, 16)),
        pytest.param({"spatial_dims": 3}, (16, 32, 16), marks=pytest.mark.slow),
        ({"spatial_dims": 3, "dense_skip": "crop"}, (16, 16, 32)),
        ({"asymmetric": False, "n_modalities": 2, "n_classes": 5}, (16, 32)),
    ],
)
def test_every_parameter_gets_a_gradient_and_the_grid_is_kept(settings, sides):
    model = network(**settings)
    config = model.config
    logits = model(images(2, config.n_modalities, *sides)).logits
    assert logits.shape == (2, config.n_classes, *sides)
    # Weighted, as a plain sum over what batch normalisation made has no gradient.
    (logits * images(*logits.shape, seed=3)).sum().backward()
    for name, parameter in model.named_parameters():
        # A bias before batch normalisation is taken out again by it: its gradient is
        # there, and is rounding.
        assert parameter.grad is not None, name
        if not name.endswith("conv.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_one_modality_is_the_same_network_in_every_fusion():
    models = [
        network(n_modalities=1, fusion=f) for f in ("hyperdense", "early", "late")
    ]
    x = images(1, 1, 32, 32)
    first = models[0].eval()(x).logits
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
        torch.testing.assert_close(model.eval()(x).logits, first, rtol=0, atol=0)


def test_paths_of_late_fusion_do_not_see_each_other_before_the_bridge():
    x = images(1, 3, 32, 32)
    other = x.clone()
    other[:, 2] += 1
    for fusion, expected in (
        ("late", [True, True, False]),
        ("hyperdense", [False] * 3),
    ):
        model = network(n_modalities=3, fusion=fusion).eval()
        before, after = model._encode(x)[0][-1], model._encode(other)[0][-1]
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == expected


def test_permuting_modalities_with_their_paths_permutes_nothing_else():
    order = [2, 0, 3, 1]  # path p of the permuted network is path order[p]
    model, permuted = network().double().eval(), network(seed=9).double().eval()
    permuted.load_state_dict(_permuted_state(model, order))
    x = images(2, 4, 32, 32).double()
    # Sums over channels run in another order: float64 rounding over some 20 layers.
    torch.testing.assert_close(
        permuted(x[:, order]).logits, model(x).logits, rtol=1e-10, atol=1e-12
    )
    assert not torch.allclose(permuted(x).logits, model(x).logits, atol=1e-3)


def _permuted_state(model: IVDNet, order: list[int]) -> dict[str, torch.Tensor]:
    """Weights of the paths in another order, each with its input channels found again.

    An input channel is known by the level and path it came from, and its number there.
    """
    width, n_paths = model.config.width, len(order)

    def sources(level: int, path: int, names: list[int]) -> list[tuple[int, int, int]]:
        return [
            (before, names[(path + step) % n_paths], channel)
            for before in range(level - 1, -1, -1)
            for step in range(n_paths)
            for channel in range(width * 2**before)
        ]

    state = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "encoder":
            # The same entry of the permuted model, and the path it is taken from.
            level, path = int(parts[1]), order.index(int(parts[2]))
            parts[2] = str(path)
            key = ".".join(parts)
        else:
            level, path, key = 4, 0, name
        reads_dense = name.endswith("first.conv.weight") and level > 0
        if reads_dense and parts[0] in ("encoder", "bridge"):
            original = order[path] if parts[0] == "encoder" else 0
            held = sources(level, original, list(range(n_paths)))
            wanted = sources(level, path, order)
            value = value[:, [held.index(source) for source in wanted]]
        state[key] = value
    return state


@pytest.mark.parametrize(("dense_skip", "seen"), [("pool", True), ("crop", False)])
def test_a_cropped_dense_skip_does_not_see_the_corner(dense_skip, seen):
    """Of what the second level passes on, the third reads the middle alone."""
    model = network(dense_skip=dense_skip, n_modalities=1).eval()
    x = images(1, 1, 128, 128)
    other = x.clone()
    other[..., :4, :4] += 1
    read = []
    block = model.encoder[2][0]
    block.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model(x), model(other)
    skip = slice(4, None)  # after the four pooled channels of level 2
    changed = (read[0] - read[1])[:, skip].abs().max() > 0
    assert bool(changed) == seen


def test_skips_are_a_mean_over_paths_and_the_upsampled_maps():
    model = network(n_modalities=3).eval()
    read = []
    model.decoder[-1].register_forward_pre_hook(lambda _, x: read.append(x[0]))
    ups = []
    model.up[-1].register_forward_hook(lambda _m, _x, out: ups.append(out.clone()))
    x = images(1, 3, 32, 32)
    model(x)
    skips = model._encode(x)[0][0]
    expected = torch.stack([ups[0], *skips]).mean(dim=0)
    torch.testing.assert_close(read[0], expected)


def test_missing_modalities_are_not_read():
    model = network(n_modalities=3).eval()
    x = images(2, 3, 32, 32)
    available = torch.tensor([[True, False, True], [True, True, True]])
    other = x.clone()
    other[0, 1] = float("nan")
    expected = model(x, available).logits
    torch.testing.assert_close(model(other, available).logits, expected)
    zeros = x.clone()
    zeros[0, 1] = 0
    torch.testing.assert_close(model(zeros).logits, expected)
    assert not torch.allclose(model(x).logits[0], expected[0], atol=1e-4)
    with pytest.raises(DataError, match="no modality at all"):
        model(x, torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="boolean of shape"):
        model(x, available[:1])


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_folding_the_normalisation_changes_nothing_but_rounding(spatial_dims):
    model = network(n_modalities=2, spatial_dims=spatial_dims).double()
    sides = (32,) * spatial_dims
    with torch.no_grad():
        for step in range(3):  # running statistics other than 0 and 1
            model(images(2, 2, *sides, seed=step).double())
    x = images(1, 2, *sides, seed=9).double()
    with pytest.raises(ValueError, match="evaluation"):
        folded(model)
    expected = model.eval()(x).logits
    torch.testing.assert_close(folded(model)(x).logits, expected, rtol=1e-9, atol=1e-9)


def test_a_wrong_shape_is_a_clear_error():
    model = network(n_modalities=2)
    with pytest.raises(
        UsageError, match=r"\(batch, 2, height, width\).*\(1, 3, 32, 32\)"
    ):
        model(images(1, 3, 32, 32))
    with pytest.raises(UsageError, match=r"multiples of 16, got \(32, 40\)"):
        model(images(1, 2, 32, 40))
    with pytest.raises(UsageError, match=r"\(batch, 2, height, width\)"):
        model(images(2, 32, 32))


@pytest.mark.parametrize(
    "settings",
    [
        {"n_modalities": 0},
        {"n_classes": 1},
        {"width": 0},
        {"spatial_dims": 4},
        {"fusion": "middle"},
        {"dense_skip": "none"},
        {"dropout": 1.0},
    ],
)
def test_settings_that_make_no_network_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        IVDNetConfig(**settings)
