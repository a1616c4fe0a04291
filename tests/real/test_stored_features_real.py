"""Rows of a file find their spots on real arrays, by names or by places."""

import h5py
import numpy as np
import pytest

from neuromm.core.spot_grid import microns_per_pixel
from neuromm.features import stored_spot_features
from neuromm.io import load

pytestmark = pytest.mark.real

ARRAYS = {"st": ("her2st", "counts", "A1.tsv.gz"), "visium": ("visium_cytassist",)}


@pytest.fixture(scope="module", params=ARRAYS)
def adata(request, data_folder):
    place = data_folder.joinpath("histology_st", *ARRAYS[request.param])
    if not place.exists():
        pytest.skip(f"{place} is not there")
    return load(place).data


@pytest.mark.parametrize("shift_um", [0.0, -56.0])
def test_patches_are_paired_by_centre_and_by_corner(adata, tmp_path, shift_um):
    """A corner of 112 um lies beyond the middle between two spots of Visium."""
    order = np.random.default_rng(0).permutation(adata.n_obs)
    corners = adata.obsm["spatial"] + shift_um / microns_per_pixel(adata)
    vectors = np.arange(adata.n_obs, dtype=np.float32)[:, None]
    with h5py.File(tmp_path / "A1.h5", "w") as file:
        file["embeddings"] = vectors[order]
        file["coords"] = corners[order].astype(int)
    found = stored_spot_features(adata, tmp_path / "A1.h5", section="A1")
    np.testing.assert_array_equal(found.overview, vectors)
    with h5py.File(tmp_path / "A1.h5", "r+") as file:
        file["barcodes"] = np.asarray(adata.obs_names, dtype=object)[order]
    named = stored_spot_features(adata, tmp_path / "A1.h5", section="A1")
    np.testing.assert_array_equal(named.overview, vectors)
