"""Four sequences of one patient with lesions: slices, patches, a sequence less.

One patient cannot say how well a network does on others: parts of the brain that were
not trained on stand in for a test, and the numbers say that the paths work.
"""

import time

import numpy as np
import torch

from neuromm.io import mri
from neuromm.metrics import dice
from neuromm.models import IVDNet, IVDNetConfig
from neuromm.training import (
    ModalityDropout,
    SegmentationTask,
    TrainingConfig,
    fit,
)

SEQUENCES = ("T1", "T1POST", "T2", "FLAIR")
# Voxels around all lesions, a multiple of 16 along each axis: 128 x 160 x 96.
BOX = (slice(27, 155), slice(29, 189), slice(48, 144))
# Blocks of sixteen slices take turns, so that few neighbours are on both sides.
BLOCK = 16


def run(root, *, n_dims, width, n_epochs, learning_rate):
    """Dice of held-out blocks with four sequences, and with each one left out."""
    folder = root / "mri" / "open_ms" / "patient07"
    sample = mri.combine(
        {name: mri.load(folder / f"{name}.nii.gz") for name in SEQUENCES},
        companions={"labels": folder / "GOLD_STANDARD.nii.gz"},
    )
    torch.manual_seed(0)
    config = IVDNetConfig(n_modalities=len(SEQUENCES), width=width, spatial_dims=n_dims)
    model = IVDNet(config)
    scaled = config.scaling.apply(mri.stacked(sample))[:, *BOX]
    lesions = np.asarray(mri.load_labels(sample).dataobj)[BOX].astype(np.int64)
    number = np.arange(scaled.shape[3]) // BLOCK
    is_test = number % 3 == 1
    samples = list(of_slices(scaled, lesions, ~is_test, n_dims))
    training = TrainingConfig(
        n_epochs=n_epochs,
        batch_size=4 if n_dims == 2 else 1,
        learning_rate=learning_rate,
        schedule="cosine",
        validation_fraction=0,
    )
    start = time.perf_counter()
    fit(
        model,
        samples,
        training,
        task=SegmentationTask(class_weights=(1.0, 50.0)),
        groups=range(len(samples)),
        augmentations=[ModalityDropout(0.2)],
    )
    minutes = (time.perf_counter() - start) / 60
    held = list(of_slices(scaled, lesions, is_test, n_dims))
    result = {
        "minutes": round(minutes, 2),
        "epochs": n_epochs,
        "box": list(scaled.shape[1:]),
        "dice": score(model, held, [True] * len(SEQUENCES)),
    }
    for index, name in enumerate(SEQUENCES):
        available = [place != index for place in range(len(SEQUENCES))]
        result[f"without {name}"] = score(model, held, available)
    return result


def of_slices(scaled, lesions, chosen, n_dims):
    """Axial slices, or quarters of blocks of them: more steps for the same time."""
    if n_dims == 2:
        for number in np.flatnonzero(chosen):
            yield one(scaled[..., number], lesions[..., number])
        return
    halves = [
        [slice(start, start + side // 2) for start in (0, side // 2)]
        for side in lesions.shape[:2]
    ]
    for start in range(0, scaled.shape[3], BLOCK):
        if chosen[start]:
            block = slice(start, start + BLOCK)
            for across in halves[0]:
                for front in halves[1]:
                    part = (across, front, block)
                    yield one(scaled[:, *part], lesions[part])


def one(images, labels):
    return {
        "images": torch.from_numpy(np.ascontiguousarray(images)),
        "labels": torch.from_numpy(np.ascontiguousarray(labels)),
    }


def score(model, samples, available):
    """Dice of all held-out voxels together."""
    found, truth = [], []
    present = torch.tensor([available])
    with torch.inference_mode():
        for part in samples:
            output = model(part["images"][None], present)
            logits = output if isinstance(output, torch.Tensor) else output.logits
            found.append(logits[0].argmax(dim=0).numpy().ravel())
            truth.append(part["labels"].numpy().ravel())
    both = np.concatenate(found), np.concatenate(truth)
    return round(float(dice(*both, labels=[1])[0]), 4)
