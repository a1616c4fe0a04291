"""Four sequences of one patient through IVD-Net: its grid, and a sequence less."""

import numpy as np
import pytest
import torch

from neuromm.core import DataError
from neuromm.io import mri
from neuromm.models import IVDNet, IVDNetConfig, predict_volume
from neuromm.training import ModalityDropout, SegmentationTask, TrainingConfig, fit

pytestmark = pytest.mark.real

SEQUENCES = ("T1", "T1POST", "T2", "FLAIR")
# Lesions lie in this part of the head; no side is a multiple of 16.
BOX = (slice(50, 98), slice(68, 119), slice(88, 100))


@pytest.fixture(scope="module")
def patient(data_folder):
    """Intensities (4, slice, height, width) of a part of the head, and its lesions."""
    folder = data_folder / "mri" / "open_ms" / "patient07"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    sample = mri.combine(
        {name: mri.load(folder / f"{name}.nii.gz") for name in SEQUENCES},
        companions={"labels": folder / "GOLD_STANDARD.nii.gz"},
    )
    lesions = np.asarray(mri.load_labels(sample).dataobj)[BOX]
    # Axial slices, of which each holds lesions, come first.
    volume = np.moveaxis(mri.stacked(sample)[:, *BOX], 3, 1)
    return volume, np.moveaxis(lesions, 2, 0).astype(np.int64)


def trained(patient, spatial_dims):
    """Network after a few steps, with sequences left out at random."""
    volume, lesions = patient
    torch.manual_seed(0)
    config = IVDNetConfig(width=1, spatial_dims=spatial_dims)
    scaled = torch.from_numpy(config.scaling.apply(volume))
    # 48 x 48 pixels: sides of training images are multiples of 16.
    images, labels = scaled[..., :48], torch.from_numpy(lesions)[..., :48]
    if spatial_dims == 3:
        padding = (0, 0, 0, 0, 0, 4)
        images = torch.nn.functional.pad(images, padding)[None]
        labels = torch.nn.functional.pad(labels, padding, value=-1)[None]
    else:
        images = images.transpose(0, 1)
    samples = [
        {"images": one, "labels": truth}
        for one, truth in zip(images, labels, strict=True)
    ]
    model = IVDNet(config)
    fit(
        model,
        samples,
        TrainingConfig(n_epochs=2, learning_rate=1e-3, validation_fraction=0),
        # Less than one voxel in a hundred is of a lesion.
        task=SegmentationTask(class_weights=(1.0, 50.0)),
        groups=range(len(samples)),
        augmentations=[ModalityDropout(0.3)],
    )
    return model


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_four_sequences_keep_their_grid_and_a_missing_one_is_not_read(
    patient, spatial_dims
):
    volume, _ = patient
    model = trained(patient, spatial_dims)
    whole = predict_volume(model, volume)
    assert whole.shape == (2, *volume.shape[1:])
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-6)
    available = [True, True, True, False]
    without = predict_volume(model, volume, available)
    assert np.isfinite(without).all()
    assert abs(without - whole).max() > 1e-3
    # What stands in the place of FLAIR does not matter, once it is said to be missing.
    for instead in (np.nan, 0.0, -3e4):
        damaged = volume.astype(np.float32)
        damaged[3] = instead
        np.testing.assert_array_equal(
            predict_volume(model, damaged, available), without
        )
        # And where it is not said, it is an error: no network guesses a sequence.
        with pytest.raises(DataError, match=r"nan or infinite|available"):
            predict_volume(model, damaged)
