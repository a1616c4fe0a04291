"""
From stimuli to features, and the controls they must beat
=========================================================

Images become a feature table; a film becomes luminance and motion. Everything is made
in the script: no file, no download. The backbone is a stand-in and says so; a network
from a folder is used in the same way.
"""

# %%
# Pictures and their features
# ---------------------------
#
# Gratings of four orientations, each with some noise. A row is a picture; the key is
# the name by which ``events.tsv`` calls it.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from neuromm.features import (
    StimulusRows,
    film_luminance,
    layer_features,
    load_backbone,
    module_backbone,
    motion_energy,
    scene_cuts,
    stimulus_features,
)

rng = np.random.default_rng(0)
axis = np.arange(96) / 96
x, y = np.meshgrid(axis, -axis)


def grating(degrees, cycles=6.0, phase=0.0):
    """Waves along a direction, 0 degrees to the right and 90 upwards."""
    angle = np.deg2rad(degrees)
    along = np.cos(angle) * x + np.sin(angle) * y
    wave = 0.5 + 0.3 * np.cos(2 * np.pi * cycles * along - phase)
    return np.clip(wave + 0.05 * rng.standard_normal(wave.shape), 0, 1)


orientations = np.repeat([0, 45, 90, 135], 6)
phases = rng.uniform(0, 2 * np.pi, len(orientations))
pictures = [grating(d, phase=p) for d, p in zip(orientations, phases, strict=True)]
names = [f"grating_{d}_{i}.png" for i, d in enumerate(orientations)]
rows = StimulusRows(tuple(pictures), pd.DataFrame({"stim_file": names}), "image")

backbone = load_backbone("image-statistics")
vision = stimulus_features(backbone, rows, name="vision")
print(vision.values.shape, vision.attrs["model"], "is a", vision.attrs["kind"])

# %%
# Pictures of one orientation lie together, whatever their phase.
centred = vision.values - vision.values.mean(axis=0)
figure, (shown, similar) = plt.subplots(1, 2, figsize=(8, 3.4))
shown.imshow(np.hstack(pictures[::6]), cmap="gray", vmin=0, vmax=1)
shown.set_title("one picture of each orientation")
shown.set_axis_off()
image = similar.imshow(np.corrcoef(centred), cmap="RdBu_r", vmin=-1, vmax=1)
similar.set_title("correlation of the features")
similar.set_xlabel("picture")
similar.set_ylabel("picture")
figure.colorbar(image, ax=similar)
figure.tight_layout()
plt.show()

# %%
# All layers of a network
# -----------------------
#
# Any torch module is a backbone. ``layer_features`` reads the output of every leaf by
# hooks; the projection is random, sparse, and the same for a network and its twin.
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 7, stride=2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(8, 16, 5, stride=2),
    torch.nn.ReLU(),
)
random_net = module_backbone(
    network,
    lambda images: np.stack(images)[:, None].astype(np.float32),
    name="two convolutions",
    dim=16,
    preprocessing="values from 0 to 1",
    kind="random twin",
)
tables = layer_features(
    random_net, rows, name="vision", pooling="flatten", projection_dim=64
)
for layer, table in tables.items():
    print(layer, table.values.shape, "|", table.attrs["projection"])

# %%
# What comes with every scene cut
# -------------------------------
#
# A film of two scenes: a grating drifts to the right, then a brighter one upwards.
# Luminance and motion change at the cut before any meaning does; a network that is said
# to understand the scene must beat them.
fps = 24.0
turns = 2 * np.pi * 4 * np.arange(48) / fps
film = [0.15 + 0.2 * grating(0, 4, turn) for turn in turns]
film += [0.6 + 0.2 * grating(90, 4, turn) for turn in turns]
light = film_luminance(film, fps)
motion = motion_energy(film, fps)
cuts = scene_cuts(film, fps)
print("cuts at", cuts, "s")

time = light.keys["onset"].to_numpy()
figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 4.4))
above.plot(time, light.values)
above.legend(light.columns, frameon=False)
directions = {"000": "rightwards", "180": "leftwards", "090": "upwards"}
for direction, label in directions.items():
    column = motion.columns.index(f"energy_sf4_dir{direction}_tf4")
    below.plot(time, motion.values[:, column], label=label)
below.legend(frameon=False)
for panel in (above, below):
    for cut in cuts:
        panel.axvline(cut, color="0.7", lw=1)
above.set_ylabel("luminance (white is 1)")
below.set_ylabel("motion energy at 4 Hz")
below.set_xlabel("time (s)")
figure.tight_layout()
plt.show()
