"""Dice is of volumes, unlabelled pixels do not count, and a wrong scale is caught."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from neuromm.core import DataError, UsageError
from neuromm.models import IVDNet, IVDNetConfig, TrainedRange
from neuromm.training import (
    ModalityDropout,
    MonaiAugmentation,
    SegmentationTask,
    TrainingConfig,
    evaluate,
    fit,
)


class Says(nn.Module):
    """A network that answers with the classes that are in its image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images):
        classes = nn.functional.one_hot(images[:, 0].long(), 3)
        return self.scale * classes.movedim(-1, 1)


def sample(found, true, **more):
    return {
        "images": torch.tensor(found, dtype=torch.float32)[None],
        "labels": torch.tensor(true),
        **more,
    }


def test_dice_is_of_volumes_and_not_of_slices():
    one, other = torch.tensor(4), torch.tensor(7)
    data = [
        sample([[1, 1, 0, 0]], [[1, 0, 0, 0]], volume=one),
        sample([[0, 0, 0, 0]], [[1, 1, 0, 0]], volume=one),
        sample([[1, 0, 2, 0]], [[1, 0, 0, 2]], volume=other),
    ]
    scores = evaluate(Says(), data, task=SegmentationTask(n_classes=3), batch_size=2)
    # Class 1: 2 * 1 / (2 + 3) and 2 * 1 / (1 + 1); class 2 is in one volume alone.
    assert scores["dice_1"] == pytest.approx((0.4 + 1) / 2)
    assert scores["dice_2"] == 0
    assert scores["dice"] == pytest.approx(0.35)


def test_pixels_without_truth_count_neither_in_loss_nor_in_dice():
    task, model = SegmentationTask(n_classes=3), Says()
    known = evaluate(model, [sample([[1, 0]], [[1, 0]])], task=task)
    partly = evaluate(model, [sample([[1, 0, 2, 2]], [[1, 0, -1, -1]])], task=task)
    assert partly["loss"] == pytest.approx(known["loss"])
    assert partly["dice"] == known["dice"] == 1
    assert math.isnan(known["dice_2"])  # in neither


def test_class_weights_weigh_the_pixels_of_a_class():
    data = [sample([[1, 1, 1, 0]], [[1, 0, 0, 0]])]
    weighted = evaluate(
        Says(), data, task=SegmentationTask(n_classes=3, class_weights=(1.0, 6.0, 1.0))
    )
    # Right pixels cost log(1 + 2 e^-10), wrong ones 10 more; one of weight 6 is right.
    right = math.log1p(2 * math.exp(-10))
    expected = (6 * right + 1 * right + 2 * (10 + right)) / 9
    assert weighted["loss"] == pytest.approx(expected, rel=1e-5)


def test_modality_dropout_leaves_one_and_drops_as_often_as_asked():
    generator = torch.Generator().manual_seed(0)
    batch = {"images": torch.zeros(4000, 3, 2, 2)}
    available = ModalityDropout(0.5)(batch, generator)["available"]
    assert available.any(dim=1).all()
    # All three are dropped in 1/8 of the samples, of which each then gets a third.
    expected = 0.5 + 0.125 / 3
    three_standard_errors = 3 * math.sqrt(0.25 / 4000)
    for modality in range(3):
        kept = float(available[:, modality].float().mean())
        assert kept == pytest.approx(expected, abs=three_standard_errors)
    held = torch.zeros(4000, 3, dtype=torch.bool)
    held[:, 1] = True
    dropped = ModalityDropout(0.9)({**batch, "available": held}, generator)
    assert torch.equal(dropped["available"], held)
    with pytest.raises(UsageError, match="probability"):
        ModalityDropout(1.0)


def test_transforms_of_monai_move_images_and_labels_alike_and_by_the_generator():
    from monai.transforms import Compose, RandAffined, RandFlipd

    keys = ["images", "labels"]
    labels = torch.arange(8 * 16).reshape(8, 4, 4)
    batch = {"images": labels[:, None].float(), "labels": labels}
    flips = MonaiAugmentation(Compose([RandFlipd(keys, prob=0.5, spatial_axis=1)]))
    flipped = flips(batch, torch.Generator().manual_seed(0))
    again = flips(batch, torch.Generator().manual_seed(0))
    assert torch.equal(flipped["images"][:, 0].long(), flipped["labels"])
    assert torch.equal(flipped["labels"], again["labels"])
    assert type(flipped["images"]) is torch.Tensor
    assert flipped["labels"].dtype == torch.int64
    is_flipped = [
        not torch.equal(a, b) for a, b in zip(flipped["labels"], labels, strict=True)
    ]
    assert 0 < sum(is_flipped) < 8
    turn = RandAffined(keys, prob=1.0, rotate_range=1.0, mode="nearest")
    turned = MonaiAugmentation(turn)(batch, torch.Generator().manual_seed(1))
    assert torch.equal(turned["images"][:, 0].long(), turned["labels"])
    with pytest.raises(DataError, match="keeps the shape"):
        cut = MonaiAugmentation(
            lambda sample: {k: v[..., 1:] for k, v in sample.items()}
        )
        cut(batch, torch.Generator())


def test_a_run_with_transforms_of_monai_goes_on(tmp_path):
    from monai.transforms import RandFlipd

    data = discs(4, seed=0)
    config = TrainingConfig(n_epochs=1, batch_size=2, validation_fraction=0)
    flip = MonaiAugmentation(RandFlipd(["images", "labels"], prob=0.5))
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = IVDNet(IVDNetConfig(width=1, n_modalities=2))
        result = fit(
            model,
            data,
            config,
            task=SegmentationTask(),
            groups=range(4),
            augmentations=[flip],
            folder=tmp_path,
        )
        results.append(result.history)
    assert results[0] == results[1]


def discs(n: int, seed: int) -> list[dict]:
    """Squares where water is bright and fat is not; decoys are bright in both."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(n):
        labels = torch.zeros(32, 32, dtype=torch.int64)
        images = 0.1 * torch.rand(2, 32, 32, generator=generator)
        for is_disc in (True, False):
            row, column = torch.randint(0, 24, (2,), generator=generator).tolist()
            place = slice(row, row + 8), slice(column, column + 8)
            images[0][place] += 0.8
            images[1][place] = 0.1 if is_disc else 0.9
            labels[place] = int(is_disc)
        samples.append({"images": images, "labels": labels})
    return samples


@dataclass(frozen=True)
class _Scaled(SegmentationTask):
    factor: float = 1.0

    def measure(self, model, batch):
        return super().measure(
            model, {**batch, "images": self.factor * batch["images"]}
        )

    def loss(self, model, batch):
        return super().loss(model, {**batch, "images": self.factor * batch["images"]})


@pytest.mark.slow
def test_a_trained_network_refuses_images_in_another_scale():
    """What the released code does: its Dice falls, and nobody is told."""
    torch.manual_seed(0)
    model = IVDNet(IVDNetConfig(width=3, n_modalities=2))
    config = TrainingConfig(
        n_epochs=12, batch_size=4, learning_rate=1e-2, validation_fraction=0
    )
    data = discs(24, seed=0)
    # A disc is 6 % of an image.
    task = SegmentationTask(class_weights=(1.0, 6.0))
    fit(model, data, config, task=task, groups=range(24))
    test = discs(8, seed=1)
    right = evaluate(model, test, task=SegmentationTask())
    for factor in (65535.0, 1 / 65535):
        with pytest.raises(DataError, match="Scale the images as in training"):
            evaluate(model, test, task=_Scaled(factor=factor))
    model.trained_range = TrainedRange(2)  # knows nothing, so it lets all pass
    wrong = evaluate(model, test, task=_Scaled(factor=65535.0))
    assert right["dice"] > 0.8
    assert wrong["dice"] < right["dice"] - 0.3
