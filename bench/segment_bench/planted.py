"""Simulated Dixon spines: which paths, and which fusion, tell discs from decoys."""

import time

import numpy as np
import torch

from neuromm.metrics import detection_rate, dice, localisation_error
from neuromm.models import IVDNet, IVDNetConfig, predict_volume
from neuromm.models.discs import disc_regions
from neuromm.simulate import make_dixon_spines
from neuromm.training import SegmentationTask, TrainingConfig, fit

ALL = ("fat", "inn", "opp", "wat")
VARIANTS = {
    "four paths, hyper-dense": (ALL, "hyperdense"),
    "four paths, early": (ALL, "early"),
    "four paths, late": (ALL, "late"),
    "water only": (("wat",), "hyperdense"),
}
N_SPINES, N_TRAINING = 14, 10


def run(*, variant, seed, width, n_epochs, learning_rate):
    """Train on ten spines, measure on four others of the same seed."""
    modalities, fusion = VARIANTS[variant]
    spines = make_dixon_spines(N_SPINES, rng=seed)
    torch.manual_seed(seed)
    config = IVDNetConfig(width=width, n_modalities=len(modalities), fusion=fusion)
    model = IVDNet(config)
    samples, groups = [], []
    for number, spine in enumerate(spines[:N_TRAINING]):
        scaled = config.scaling.apply(stacked(spine, modalities))
        for index in range(scaled.shape[1]):
            samples.append(
                {
                    "images": torch.from_numpy(scaled[:, index]),
                    "labels": torch.from_numpy((spine.discs[index] > 0).astype("i8")),
                    "volume": torch.tensor(number),
                }
            )
            groups.append(number)
    training = TrainingConfig(
        n_epochs=n_epochs,
        batch_size=4,
        learning_rate=learning_rate,
        schedule="cosine",
        monitor="dice",
        higher_is_better=True,
        seed=seed,
    )
    start = time.perf_counter()
    fit(
        model,
        samples,
        training,
        task=SegmentationTask(class_weights=(1.0, 4.0)),
        groups=groups,
    )
    minutes = (time.perf_counter() - start) / 60
    overlap, errors, rates = [], [], []
    for spine in spines[N_TRAINING:]:
        mask = predict_volume(model, stacked(spine, modalities)).argmax(axis=0)
        truth = (spine.discs > 0).astype(int)
        overlap.append(float(dice(mask.astype(int), truth, labels=[1])[0]))
        centres = disc_regions(mask, spine.affine).table[
            ["centre_x", "centre_y", "centre_z"]
        ]
        found = centres.to_numpy(dtype=float)
        if len(found):
            errors.extend(localisation_error(found, spine.centres_mm))
        rates.append(float(detection_rate(found, spine.centres_mm)))
    # nan of a disc that nothing was matched to: the rate counts it, the mean does not.
    known = [error for error in errors if not np.isnan(error)]
    return {
        "dice": round(float(np.mean(overlap)), 4),
        "lowest_dice": round(min(overlap), 4),
        "localisation_mm": round(float(np.mean(known)), 3) if known else None,
        "detection_rate": round(float(np.mean(rates)), 3),
        "minutes": round(minutes, 2),
        "epochs": n_epochs,
    }


def stacked(spine, modalities):
    return np.stack([spine.images[name] for name in modalities])
