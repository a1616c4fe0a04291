"""Spots of tissue sections: three layouts, one AnnData, and what is refused."""

import gzip
import json
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import mmwrite
from scipy.sparse import csr_matrix

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.spot_grid import chip_positions
from neuromm.io import load, spatial

GENES = ["ACTB", "ERBB2", "KRT8", "CD3E"]


def section(folder, *, counts=None, spots=None, gz=True):
    """A first-generation section: 5 x 4 spots, 200 um apart at 0.8 um a pixel."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(3, 8), np.arange(10, 14)))
    places = chip_positions(y, x, "st") / 0.8
    if spots is None:
        spots = pd.DataFrame(
            {
                "x": x,
                "y": y,
                "new_x": x + 0.02,
                "new_y": y - 0.03,
                "pixel_x": places[:, 0],
                "pixel_y": places[:, 1],
                "selected": 1,
            }
        )
    rng = np.random.default_rng(0)
    if counts is None:
        counts = pd.DataFrame(
            rng.poisson(3, (20, 4)),
            index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)],
            columns=GENES,
        )
    (folder / "counts").mkdir(parents=True)
    (folder / "spots").mkdir()
    path = folder / "counts" / ("Z1.tsv.gz" if gz else "Z1.tsv")
    counts.to_csv(path, sep="\t")
    spots.to_csv(folder / "spots" / "Z1_selection.tsv", sep="\t", index=False)
    return path, counts, spots


def visium(folder, *, header=True, size=0.5):
    """Outputs of Space Ranger: 4 x 5 spots of a hexagonal array."""
    row, place = np.divmod(np.arange(20), 5)
    col = 2 * place + row % 2
    pixels = chip_positions(row, col, "visium") / size
    barcodes = [f"AAAC{number:04d}-1" for number in range(20)]
    matrix = folder / "filtered_feature_bc_matrix"
    (folder / "spatial").mkdir(parents=True)
    matrix.mkdir()
    counts = np.random.default_rng(1).poisson(2, (20, 4))
    mmwrite(matrix / "matrix.mtx", csr_matrix(counts.T))
    (matrix / "barcodes.tsv").write_text("\n".join(barcodes) + "\n")
    (matrix / "features.tsv").write_text(
        "".join(f"ENSG{i}\t{gene}\tGene Expression\n" for i, gene in enumerate(GENES))
    )
    for name in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        (matrix / f"{name}.gz").write_bytes(
            gzip.compress((matrix / name).read_bytes(), mtime=0)
        )
        (matrix / name).unlink()
    table = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": 1,
            "array_row": row,
            "array_col": col,
            "pxl_row_in_fullres": pixels[:, 1],
            "pxl_col_in_fullres": pixels[:, 0],
        }
    ).sample(frac=1, random_state=0)
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    table.to_csv(folder / "spatial" / name, index=False, header=header)
    scales = {"spot_diameter_fullres": 130.0, "tissue_hires_scalef": 0.2}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))
    Image.new("RGB", (40, 30), (200, 150, 180)).save(
        folder / "spatial" / "tissue_hires_image.png"
    )
    return folder, table.set_index("barcode").loc[barcodes], counts


def h5ad(path, change=lambda adata: None):
    adata = anndata.read_h5ad(spatial.write_example(path.parent / "made"))
    change(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(path)
    return path


@pytest.mark.parametrize("gz", [True, False])
def test_a_first_generation_section_is_paired_by_the_names_of_spots(tmp_path, gz):
    path, counts, spots = section(tmp_path, gz=gz)
    shuffled = spots.sample(frac=1, random_state=1)
    shuffled.to_csv(tmp_path / "spots" / "Z1_selection.tsv", sep="\t", index=False)
    sample = load(path)
    adata = sample.data
    np.testing.assert_array_equal(adata.X.toarray(), counts.to_numpy())
    assert list(adata.var_names) == GENES
    # x is the first number of a name and runs along the width of the picture.
    spot = adata["5x12"]
    assert (spot.obs["array_col"].item(), spot.obs["array_row"].item()) == (5, 12)
    np.testing.assert_allclose(spot.obsm["spatial"], [[5 * 250.0, 12 * 250.0]])
    assert spatial.microns_per_pixel(adata) == pytest.approx(0.8)
    assert sample.companions["spots"].name == "Z1_selection.tsv"
    with_labels = spatial.load(path, companions={"labels": tmp_path / "labels.tsv"})
    assert set(with_labels.companions) == {"spots", "labels"}


@pytest.mark.parametrize("header", [True, False])
def test_a_visium_folder_is_read_as_scanpy_has_it(tmp_path, header):
    folder, table, counts = visium(tmp_path / "outs", header=header)
    sample = load(folder)
    adata = sample.data
    assert sample.modality == "spatial"
    np.testing.assert_array_equal(adata.X.toarray(), counts)
    np.testing.assert_allclose(
        adata.obsm["spatial"], table[["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    )
    library = adata.uns["spatial"]["outs"]
    assert library["images"]["hires"].shape == (30, 40, 3)
    # By the pitch of the array, not by the diameter of a spot.
    assert library["scalefactors"]["microns_per_pixel"] == pytest.approx(0.5)
    assert list(adata.var["gene_ids"]) == [f"ENSG{i}" for i in range(4)]


def test_an_h5ad_keeps_its_counts_on_disk(tmp_path):
    sample = load(h5ad(tmp_path / "a.h5ad"))
    assert sample.data.isbacked
    assert sample.data.to_memory().X.sum() > 0


def test_the_layout_of_hest_brings_its_patches_and_metadata(tmp_path):
    for folder in ("st", "patches", "metadata"):
        (tmp_path / folder).mkdir()
    (tmp_path / "patches" / "T1.h5").write_bytes(b"")

    def without_scale(adata):
        adata.uns["spatial"]["example"]["scalefactors"] = {"spot_diameter_fullres": 1.0}
        adata.obs = adata.obs.drop(columns=["array_row", "array_col"])

    path = h5ad(tmp_path / "st" / "T1.h5ad", without_scale)
    with pytest.raises(UsageError, match=r"microns_per_pixel=0\.5"):
        load(path)
    stated = {"pixel_size_um_estimated": 0.46, "organ": "Breast"}
    (tmp_path / "metadata" / "T1.json").write_text(json.dumps(stated))
    sample = load(path)
    assert spatial.microns_per_pixel(sample.data) == 0.46
    assert sample.metadata["organ"] == "Breast"
    assert sample.companions["patches"] == tmp_path / "patches" / "T1.h5"
    given = spatial.load(path, microns_per_pixel=0.5)
    assert spatial.microns_per_pixel(given.data) == 0.5


def swapped(adata):
    adata.obs["pxl_col_in_fullres"] = adata.obsm["spatial"][:, 0]
    adata.obs["pxl_row_in_fullres"] = adata.obsm["spatial"][:, 1]
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()


def in_a_small_picture(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"] / 4


def moved_from_columns(adata):
    swapped(adata)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1] * 0.2


def nowhere(adata):
    del adata.obsm["spatial"]


def lost(adata):
    adata.obsm["spatial"][3, 0] = np.nan


def two_sections(adata):
    adata.uns["spatial"]["other"] = adata.uns["spatial"]["example"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, "x and y are swapped"),
        (in_a_small_picture, "by the pitch of the array it measures 2 um"),
        (moved_from_columns, "smaller picture"),
        (nowhere, 'has no obsm\\["spatial"\\]'),
        (lost, "places that are no numbers"),
        (two_sections, "one section, got 2"),
    ],
)
def test_an_h5ad_whose_places_are_wrong_is_refused(tmp_path, change, message):
    path = h5ad(tmp_path / "wrong.h5ad", change)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert "wrong.h5ad" in str(caught.value)


def test_spots_without_a_place_are_left_out_with_a_warning(tmp_path):
    path, _, spots = section(tmp_path)
    spots.iloc[2:].to_csv(tmp_path / "spots" / "Z1_selection.tsv", sep="\t")
    with pytest.warns(UserWarning, match="2 of 20 spots have counts and no place"):
        assert load(path).data.n_obs == 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda counts, spots: counts.__iadd__(0.5), "whole numbers of 0 or above"),
        (lambda counts, spots: counts.__isub__(9), "whole numbers of 0 or above"),
        (lambda counts, spots: counts.columns.values.__setitem__(1, "ACTB"), "twice"),
        (
            lambda counts, spots: spots.drop(columns="pixel_x", inplace=True),
            "lacks pixel_x",
        ),
        (
            lambda counts, spots: spots.__setitem__("x", spots["x"] + 90),
            "belong to one section",
        ),
        (
            lambda counts, spots: spots.loc.__setitem__((3, "pixel_y"), np.nan),
            "are missing",
        ),
    ],
)
def test_tables_that_are_no_section_are_refused(tmp_path, change, message):
    _, counts, spots = section(tmp_path / "right")
    counts = counts.astype(float)
    change(counts, spots)
    path, _, _ = section(tmp_path / "wrong", counts=counts, spots=spots)
    with pytest.raises(DataError, match=message):
        load(path)


def test_a_cut_count_table_is_refused(tmp_path):
    path, _, _ = section(tmp_path, gz=False)
    content = path.read_bytes()
    for share in (0.3, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=r"Z1\.tsv"):
            load(path)


def test_missing_files_are_named(tmp_path):
    path, _, _ = section(tmp_path / "a")
    (tmp_path / "a" / "spots" / "Z1_selection.tsv").unlink()
    with pytest.raises(InputMissingError, match=r"Z1_selection\.tsv"):
        load(path)
    folder, _, _ = visium(tmp_path / "outs")
    matrix = folder / "filtered_feature_bc_matrix"
    (matrix / "barcodes.tsv.gz").unlink()
    with pytest.raises(InputMissingError, match=r"barcodes\.tsv"):
        load(folder)
    (folder / "spatial" / "tissue_positions.csv").unlink()
    with pytest.raises(InputMissingError):
        load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "filtered_feature_bc_matrix/matrix.mtx.gz",
        "filtered_feature_bc_matrix/features.tsv.gz",
        "spatial/tissue_positions.csv",
        "spatial/tissue_hires_image.png",
        "spatial/scalefactors_json.json",
    ],
)
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_cut_file_of_a_visium_folder_is_refused(tmp_path, name, share):
    folder, _, _ = visium(tmp_path / "outs")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="outs"):
        load(folder)
