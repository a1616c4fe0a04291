"""SPIDER slices: patient-wise folds, IVD-Net and a U-Net of MONAI of the same size."""

import numpy as np
import torch
from torch.nn import functional

from neuromm.io import mri
from neuromm.io.mri_layouts import SPIDER_SLICE_LABELS, open_spider_slices
from neuromm.metrics import dice
from neuromm.models import IVDNet, IVDNetConfig
from neuromm.training import (
    MonaiAugmentation,
    SegmentationTask,
    TrainingConfig,
    fit,
)

N_FOLDS = 5
SIZE = (640, 512)
WEIGHTS = {"disc": (1.0, 4.0), "all": (1.0, 4.0, 1.0, 2.0)}
CLASSES = {"disc": ("disc",), "all": ("disc", "vertebra", "canal")}


def slices(root, target):
    """Pictures of (640, 512) pixels, labels of classes, and the patient of each."""
    study = open_spider_slices(root)
    pictures, labels, patients = [], [], []
    for number in range(len(study)):
        sample = study.load(number)
        picture = mri.stacked(sample)[0, :, :, 0]
        values = np.asarray(mri.load_labels(sample).dataobj)[:, :, 0]
        classes = np.zeros(SIZE, dtype=np.int64)
        padded = np.zeros(SIZE, dtype=np.float32)
        rows = slice(0, picture.shape[0])
        padded[rows] = picture
        for index, name in enumerate(CLASSES[target], start=1):
            classes[rows][values == SPIDER_SLICE_LABELS[name]] = index
        pictures.append(padded)
        labels.append(classes)
        patients.append(study.table["subject"].iloc[number])
    return np.stack(pictures), np.stack(labels), np.array(patients)


def test_patients(patients, fold):
    """Patients of a fold: a shuffle that does not depend on the machine."""
    names = sorted(set(patients), key=int)
    order = np.random.default_rng(0).permutation(len(names))
    return {names[i] for i in order[fold::N_FOLDS]}


def small(pictures, labels, n_classes, step):
    """Fewer pixels: means of squares, and the class that most of their pixels have."""
    n, height, width = pictures.shape
    shape = (n, height // step, step, width // step, step)
    one_hot = [(labels == c).reshape(shape).mean(axis=(2, 4)) for c in range(n_classes)]
    return pictures.reshape(shape).mean(axis=(2, 4)), np.argmax(one_hot, axis=0)


def ivdnet(n_classes, width):
    return IVDNet(IVDNetConfig(n_modalities=1, n_classes=n_classes, width=width))


def unet(n_classes, n_parameters):
    """The U-Net of MONAI, residual units, whose size comes nearest."""
    from monai.networks.nets import UNet

    def of(base):
        return UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=n_classes,
            channels=tuple(base * 2**level for level in range(5)),
            strides=(2, 2, 2, 2),
            num_res_units=2,
        )

    sizes = {base: n_weights(of(base)) for base in range(3, 40)}
    return of(min(sizes, key=lambda base: abs(sizes[base] - n_parameters)))


def n_weights(model):
    return sum(parameter.numel() for parameter in model.parameters())


def augmentation(step):
    """Places and sizes; and contrasts, by which scanners differ most."""
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandBiasFieldd,
        RandScaleIntensityd,
    )

    moves = RandAffined(
        ["images", "labels"],
        prob=0.8,
        rotate_range=0.15,
        scale_range=0.12,
        translate_range=40 // step,
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )
    return MonaiAugmentation(
        Compose(
            [
                moves,
                RandAdjustContrastd(["images"], gamma=(0.4, 2.2), prob=0.7),
                RandBiasFieldd(["images"], coeff_range=(0.0, 0.3), prob=0.3),
                RandScaleIntensityd(["images"], factors=0.3, prob=0.5),
            ]
        )
    )


def run(root, *, name, target, width, n_epochs, fold, folder, learning_rate, step):
    """Train one network on four fifths of the patients; Dice on the others."""
    pictures, labels, patients = slices(root, target)
    n_classes = len(CLASSES[target]) + 1
    scaling = IVDNetConfig(n_modalities=1).scaling
    scaled = np.concatenate([scaling.apply(p[None, None])[0] for p in pictures])
    images, classes = small(scaled, labels, n_classes, step)
    held = np.isin(patients, list(test_patients(patients, fold)))
    torch.manual_seed(fold)
    model = ivdnet(n_classes, width)
    if name == "unet":
        model = unet(n_classes, n_weights(model))
    samples = [
        {
            "images": torch.from_numpy(images[i][None]),
            "labels": torch.from_numpy(classes[i]),
        }
        for i in np.flatnonzero(~held)
    ]
    config = TrainingConfig(
        n_epochs=n_epochs,
        batch_size=4,
        learning_rate=learning_rate,
        schedule="cosine",
        validation_fraction=0.15,
        monitor="dice",
        higher_is_better=True,
        seed=fold,
    )
    result = fit(
        model,
        samples,
        config,
        task=SegmentationTask(n_classes=n_classes, class_weights=WEIGHTS[target]),
        groups=list(patients[~held]),
        augmentations=[augmentation(step)],
        folder=folder,
    )
    # A run that was stopped went on from its folder: each epoch says what it took.
    minutes = sum(line["seconds"] for line in result.history) / 60
    scores = [
        dice(found(model, images[i]), labels[i], labels=range(1, n_classes))
        for i in np.flatnonzero(held)
    ]
    by_patient = [
        np.mean([s for s, p in zip(scores, patients[held], strict=True) if p == one], 0)
        for one in sorted(set(patients[held]), key=int)
    ]
    means = np.nanmean(by_patient, axis=0)
    return {
        "parameters": n_weights(model),
        "step": step,
        "learning_rate": learning_rate,
        "minutes": round(minutes, 2),
        "epochs": n_epochs,
        "best_epoch": result.best_epoch,
        "n_test_patients": len(by_patient),
        "dice": {
            one: round(float(value), 4)
            for one, value in zip(CLASSES[target], means, strict=True)
        },
        "by_patient": [[round(float(v), 4) for v in one] for one in by_patient],
        "curve": [round(float(line["validation_dice"]), 3) for line in result.history],
    }


def found(model, image):
    """Classes at full resolution: scores of classes are interpolated."""
    with torch.inference_mode():
        output = model(torch.from_numpy(image[None, None]))
    logits = output if isinstance(output, torch.Tensor) else output.logits
    whole = functional.interpolate(logits, size=SIZE, mode="bilinear")
    return whole[0].argmax(dim=0).numpy()
