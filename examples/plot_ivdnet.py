"""
Which tissue is a disc? Fat and water together tell
===================================================

IVD-Net on simulated Dixon scans of spines. Beside the discs stand decoys of their size:
some have the water of a disc, others its in-phase and opposed-phase signal. No image
alone tells the two apart; fat and water together do. The scans are simulated, so every
disc's place and volume is known.
"""

# %%
# Scans
# -----
#
# Four images of each voxel: fat, water, their sum (in-phase) and the magnitude of their
# difference (opposed-phase). Sagittal slices lie along the first axis.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from neuromm.metrics import dice, localisation_error
from neuromm.models import IVDNet, IVDNetConfig, disc_regions, predict_volume
from neuromm.simulate import make_dixon_spines
from neuromm.training import SegmentationTask, TrainingConfig, fit

NAMES = ("fat", "inn", "opp", "wat")
TITLES = ("fat", "in-phase", "opposed-phase", "water")
spines = make_dixon_spines(6, shape=(8, 64, 64), spacing_mm=(8.0, 2.0, 2.0), rng=0)
training, held = spines[:5], spines[5]

figure, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
for axis, name, title in zip(axes, NAMES, TITLES, strict=True):
    # The patient's front at the left, up at the top.
    axis.imshow(held.images[name][4, ::-1].T, cmap="gray", origin="lower")
    axis.contour(held.discs[4, ::-1].T > 0, [0.5], colors="tab:orange", linewidths=1)
    axis.set(title=title, xticks=[], yticks=[])
figure.suptitle("One sagittal slice of a simulated scan; discs are outlined")


# %%
# Two networks
# ------------
#
# One sees all four images, each in a path of its own; the other sees water alone. Both
# are narrow and trained for a short time. `fit` holds a patient out, inside of the
# training set, to choose the epoch.
def trained(names):
    """Network of some of the images, trained on five spines."""
    torch.manual_seed(0)
    config = IVDNetConfig(n_modalities=len(names), width=4)
    samples, patients = [], []
    for spine in training:
        volume = config.scaling.apply(np.stack([spine.images[name] for name in names]))
        for index in range(volume.shape[1]):
            labels = (spine.discs[index] > 0).astype("int64")
            samples.append(
                {
                    "images": torch.from_numpy(volume[:, index]),
                    "labels": torch.from_numpy(labels),
                }
            )
            patients.append(spine.subject)
    model = IVDNet(config)
    settings = TrainingConfig(
        n_epochs=14,
        batch_size=4,
        learning_rate=2e-3,
        schedule="cosine",
        monitor="dice",
        higher_is_better=True,
    )
    task = SegmentationTask(class_weights=(1.0, 4.0))
    fit(model, samples, settings, task=task, groups=patients)
    return model


networks = {"four paths": NAMES, "water only": ("wat",)}
found, rows = {}, []
for title, names in networks.items():
    volume = np.stack([held.images[name] for name in names])
    mask = predict_volume(trained(names), volume).argmax(axis=0)
    regions = disc_regions(mask, held.affine)
    centres = regions.table[["centre_x", "centre_y", "centre_z"]].to_numpy()
    error = np.nan
    if len(centres):
        error = np.nanmean(localisation_error(centres, held.centres_mm))
    truth = (held.discs > 0).astype(int)
    overlap = dice(mask.astype(int), truth, labels=[1])[0]
    rows.append((title, overlap, len(centres), error))
    found[title] = mask

columns = ["network", "Dice", "discs found (5 are there)", "centres, mm"]
pd.DataFrame(rows, columns=columns).round(2)

# %%
# What they found
# ---------------
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for axis, (title, mask) in zip(axes, found.items(), strict=True):
    axis.imshow(held.images["wat"][4, ::-1].T, cmap="gray", origin="lower")
    axis.contour(held.discs[4, ::-1].T > 0, [0.5], colors="tab:cyan", linewidths=1)
    if mask[4].any():
        axis.contour(mask[4, ::-1].T, [0.5], colors="tab:orange", linewidths=2)
    axis.set(title=title, xticks=[], yticks=[])
figure.suptitle("Water image; thin: the truth, thick: what the network found")
