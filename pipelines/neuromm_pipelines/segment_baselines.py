"""What IVD-Net is compared with on the same patients: a U-Net, and no network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neuromm.io import mri
from neuromm.metrics import bootstrap_interval, dice
from neuromm_pipelines.segment_scans import (
    Scan,
    Values,
    classes_of,
    scaled_volume,
)

__all__ = ["compared", "logistic", "of_network", "of_peer", "unet_like"]

# Takes scaled intensities (n_modalities, slices, height, width), 0 where a modality is
# missing, and which there are; gives classes.
Predictor = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.int64]]

_MULTIPLE = 16
_WIDTHS_PX = (1.0, 3.0)  # of the Gaussians whose averages the regression sees
_MOST_PIXELS = 200_000


def unet_like(model: Any, seed: int) -> torch.nn.Module:
    """The U-Net of MONAI, with residual units, whose size comes nearest."""
    from monai.networks.nets import UNet

    config = model.config

    def of(base: int) -> torch.nn.Module:
        return UNet(
            spatial_dims=config.spatial_dims,
            in_channels=config.n_modalities,
            out_channels=config.n_classes,
            channels=tuple(base * 2**level for level in range(5)),
            strides=(2, 2, 2, 2),
            num_res_units=2,
        )

    wanted = _n_weights(model)
    base = min(range(2, 80), key=lambda one: abs(_n_weights(of(one)) - wanted))
    torch.manual_seed(seed)
    return _WithoutAvailable(of(base)).to(next(model.parameters()).device)


def of_network(model: Any) -> Predictor:
    """Classes by an IVD-Net, of scaled intensities."""
    from neuromm.models.volume_prediction import (
        network_for_prediction,
        probabilities_of,
    )

    network = network_for_prediction(model)

    def predict(
        scaled: NDArray[np.float32], present: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        available = torch.from_numpy(present[None])
        found = [
            probabilities_of(network, torch.from_numpy(part[None]), available)[0]
            for part in _parts(scaled, model.config.spatial_dims)
        ]
        return _joined([one.argmax(axis=0) for one in found], scaled)

    return predict


def of_peer(model: torch.nn.Module) -> Predictor:
    """Classes by another network, of scaled intensities."""
    device = next(model.parameters()).device

    def predict(
        scaled: NDArray[np.float32], present: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        found = []
        model.eval()
        for part in _parts(scaled, model.spatial_dims):  # type: ignore[arg-type]
            sides = part.shape[1:]
            room = [(0, -side % _MULTIPLE) for side in sides]
            padded = np.pad(part, [(0, 0), *room], mode="edge")
            with torch.inference_mode():
                logits = model(torch.from_numpy(padded[None]).to(device))[0]
            classes = logits.argmax(dim=0).cpu().numpy()
            found.append(classes[tuple(slice(side) for side in sides)])
        return _joined(found, scaled)

    return predict


def logistic(slices: Any, n_classes: int, seed: int) -> Predictor:
    """Classes of voxels by a regression on intensities and their local averages."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    features, truth = [], []
    each = max(_MOST_PIXELS // len(slices), 100)
    for images, labels in zip(slices.images, slices.labels, strict=True):
        known = np.flatnonzero(labels.ravel() >= 0)
        chosen = rng.choice(known, min(each, len(known)), replace=False)
        features.append(_features(np.asarray(images))[chosen])
        truth.append(labels.ravel()[chosen])
    model = LogisticRegression(class_weight="balanced", max_iter=300)
    model.fit(np.concatenate(features), np.concatenate(truth))

    def predict(
        scaled: NDArray[np.float32], present: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        found = [
            model.predict(_features(part)).reshape(part.shape[1:])
            for part in _parts(scaled, slices.images.ndim - 2)
        ]
        return _joined(found, scaled)

    return predict


def compared(
    predictors: Mapping[str, Predictor],
    scans: Sequence[Scan],
    modalities: Sequence[str],
    classes: Mapping[str, Values],
    model: Any,
) -> pd.DataFrame:
    """Mean Dice of each class over patients, with an interval for the discs.

    Returns
    -------
    table : DataFrame
        A row a predictor: ``method``, ``dice_<class>``, and ``low`` and ``high``, a
        95 % interval of the mean Dice of the discs over patients.
    """
    scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in predictors}
    labels = range(1, len(classes) + 1)
    for scan in scans:
        sample = scan.load()
        scaled, present, order = scaled_volume(sample, modalities, model.config.scaling)
        truth = classes_of(
            order.turned(np.asarray(mri.load_labels(sample).dataobj)), classes
        )
        for name, predict in predictors.items():
            found = predict(scaled, present)
            scores[name].append(dice(found, truth, labels=labels))
    patients = [scan.subject for scan in scans]
    rows = []
    for name, values in scores.items():
        each = pd.DataFrame(values, columns=list(classes))
        means = each.groupby(patients).mean().mean()
        low, high = bootstrap_interval(each["disc"], groups=patients)
        rows.append(
            {
                "method": name,
                **{f"dice_{one}": float(means[one]) for one in classes},
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


class _WithoutAvailable(torch.nn.Module):  # type: ignore[misc]
    """A network that is told which modalities there are, and has no use for it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims = int(network.dimensions)  # type: ignore[arg-type]

    def forward(
        self, images: torch.Tensor, available: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of the classes; modalities that are not available are 0."""
        if available is not None:
            shape = (*available.shape, *[1] * self.spatial_dims)
            images = images * available.reshape(shape)
        logits: torch.Tensor = self.network(images)
        return logits


def _features(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intensities and their local averages, (n_voxels, n_features)."""
    from scipy.ndimage import gaussian_filter

    maps = [images]
    maps += [
        np.stack([gaussian_filter(one, width) for one in images])
        for width in _WIDTHS_PX
    ]
    whole = np.concatenate(maps)
    flat: NDArray[np.float32] = whole.reshape(len(whole), -1).T
    return flat


def _parts(scaled: NDArray[np.float32], spatial_dims: int) -> list[NDArray[np.float32]]:
    """Slices, or the volume, of a network."""
    if spatial_dims == 3:
        return [scaled]
    return [np.ascontiguousarray(scaled[:, index]) for index in range(scaled.shape[1])]


def _joined(
    found: Sequence[NDArray[Any]], scaled: NDArray[np.float32]
) -> NDArray[np.int64]:
    classes: NDArray[np.int64] = np.stack(found).reshape(scaled.shape[1:])
    return classes.astype(np.int64)


def _n_weights(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
