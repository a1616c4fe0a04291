"""A shifted picture, swapped axes, a wrong scale and doubled sections are noticed."""

import anndata
import numpy as np
import pandas as pd
import pytest

from neuromm.core.spot_grid import chip_positions
from neuromm.prepare.spot_quality import check_spots, doubled_sections
from neuromm.prepare.tissue import tissue_mask
from tests.prepare import tissue_pictures as pictures


def section(kind, *, seed=0):
    """Spots of a chip that lie on the disc of tissue."""
    slide, inside = pictures.disc_slide()
    rows, columns = (axis.ravel() for axis in np.mgrid[:40, :60])
    if kind == "visium":
        columns = 2 * columns + rows % 2
    places = chip_positions(rows, columns, kind) / slide.microns_per_pixel + 6.0
    x, y = places.astype(int).T
    on_slide = (x < slide.width) & (y < slide.height)
    used = on_slide.copy()
    used[on_slide] = inside[y[on_slide], x[on_slide]]
    counts = np.random.default_rng(seed).poisson(3, (int(used.sum()), 6))
    obs = pd.DataFrame(
        {"array_row": rows[used], "array_col": columns[used], "in_tissue": 1},
        index=[f"{a}x{b}" for a, b in zip(columns[used], rows[used], strict=True)],
    )
    adata = anndata.AnnData(counts.astype(np.float32), obs=obs)
    adata.obsm["spatial"] = places[used]
    scales = {"microns_per_pixel": slide.microns_per_pixel}
    adata.uns["spatial"] = {"made": {"scalefactors": scales}}
    return adata, tissue_mask(slide)


def kinds(findings):
    return {finding.kind for finding in findings}


@pytest.fixture(params=["st", "visium"])
def made(request):
    return (*section(request.param), request.param)


def test_a_section_in_order_has_no_finding(made):
    adata, tissue, kind = made
    assert check_spots(adata, tissue, kind) == []


@pytest.mark.parametrize("pitches", [(2.0, 0.0), (-1.5, 1.5), (0.0, -3.0)])
def test_a_shifted_picture_is_noticed_with_its_shift(made, pitches):
    adata, tissue, kind = made
    shift_um = np.array(pitches) * (200.0 if kind == "st" else 100.0)
    adata.obsm["spatial"] = adata.obsm["spatial"] + shift_um / 4.0
    found = {f.kind: f for f in check_spots(adata, tissue, kind)}
    assert "shifted" in found
    # To half a pitch, in which it is looked for.
    pitch = 200.0 if kind == "st" else 100.0
    assert found["shifted"].value == pytest.approx(np.hypot(*shift_um), abs=pitch / 2)
    assert "mirrored" not in found


def test_swapped_axes_are_a_mirror_image_off_the_tissue(made):
    adata, tissue, kind = made
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    assert "mirrored" in kinds(check_spots(adata, tissue, kind))


def test_a_wrong_scale_is_named_with_both(made):
    adata, tissue, kind = made
    adata.uns["spatial"]["made"]["scalefactors"]["microns_per_pixel"] = 5.0
    found = {f.kind: f for f in check_spots(adata, tissue, kind)}
    assert found["wrong_scale"].value == pytest.approx(1.25, rel=1e-6)
    assert "5 um" in found["wrong_scale"].message


def test_a_picture_of_something_else_leaves_spots_off_the_tissue(made):
    adata, _, kind = made
    elsewhere, _ = pictures.disc_slide(centre=(900, 800), radius=(120, 80))
    found = check_spots(adata, tissue_mask(elsewhere), kind)
    assert "off_tissue" in kinds(found)


def test_sections_that_repeat_are_found_and_replicates_are_not():
    first, _ = section("st", seed=0)
    replicate, _ = section("st", seed=1)
    again = first[::-1].copy()
    found = doubled_sections({"A1": first, "A2": replicate, "A3": again})
    assert [(f.kind, f.value > 0.999) for f in found] == [("doubled", True)]
    assert "A1 and A3" in found[0].message
