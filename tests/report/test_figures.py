import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuromm.atlas import in_mni_family
from neuromm.report.figures import (
    contact_map,
    glass_brain,
    score_histograms,
    score_time_courses,
    sensor_topography,
    volume_on_surface,
)
from neuromm.report.figures.canvas import colour_map, score_limits
from neuromm.report.figures.contacts import shaft_of
from neuromm.report.pictures import coarsened, masked_scores, unit_pictures
from neuromm.report.units import read_units


def chunks(png: bytes) -> list[str]:
    names, position = [], 8
    while position < len(png):
        length, name = struct.unpack(">I4s", png[position : position + 8])
        names.append(name.decode())
        position += 12 + length
    return names


def galleries(root: Path, subject: str, datatype: str, word: str = "") -> dict:
    (unit,) = [
        u
        for u in read_units(root, subject)
        if u.datatype == datatype and word in u.path.name
    ]
    return {gallery.heading: gallery for gallery in unit_pictures(unit)}


def test_a_picture_is_the_same_bytes_each_time_and_carries_no_date(
    builders: SimpleNamespace,
):
    contacts = builders.contacts().assign(r=0.3)
    first, second = (contact_map(contacts, (0, 0.5), name="a").png for _ in range(2))
    assert first == second
    assert set(chunks(first)) == {"IHDR", "pHYs", "IDAT", "IEND"}


@pytest.mark.slow
def test_drawing_leaves_the_settings_and_figures_of_pyplot_alone():
    code = """
import matplotlib; matplotlib.use("svg"); import matplotlib.pyplot as plt
import nibabel, numpy as np
matplotlib.rcParams["font.size"] = 17.0
from neuromm.report.figures import glass_brain
image = nibabel.Nifti1Image(np.full((9, 9, 9), 0.2, "f4"), np.diag([9, 9, 9, 1.0]))
glass_brain(image, (0, 0.5), name="vision")
assert plt.get_backend().lower() == "svg", plt.get_backend()
assert matplotlib.rcParams["font.size"] == 17.0
assert plt.get_fignums() == []
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@given(
    hnp.arrays(float, 20, elements=st.floats(-1, 1)),
    hnp.arrays(float, 20, elements=st.floats(0, 1)),
)
def test_nothing_is_drawn_that_is_not_significant(r: np.ndarray, q: np.ndarray):
    shown, note = masked_scores(r, q, (0.0, 1.0))
    significant = (q < 0.05) & (r > 0)
    if significant.any():
        np.testing.assert_array_equal(shown, np.where(significant, r, 0))
        assert "q < 0.05" in note
    else:
        assert note.startswith("Nothing reaches q < 0.05")


def test_without_a_test_the_picture_says_so():
    shown, note = masked_scores(np.array([0.05, 0.3, np.nan]), None, (0.0, 0.5))
    np.testing.assert_array_equal(shown, [0.0, 0.3, np.nan])
    assert note == "Only r of 0.10 and above is drawn; no permutation test was run."


def test_the_scale_ends_at_a_round_number_and_ignores_a_single_voxel():
    many = np.full(10_000, 0.23)
    many[0] = 0.97
    assert score_limits(many) == (0.0, pytest.approx(0.3))
    assert score_limits(np.array([np.nan, -0.4])) == (0.0, 0.1)
    assert score_limits(-many, signed=True) == (pytest.approx(-0.3), pytest.approx(0.3))


def test_lightness_of_the_colours_falls_evenly_with_the_score():
    weights = np.array([0.2126, 0.7152, 0.0722])  # luminance of linear sRGB
    rgb = colour_map()(np.linspace(0, 1, 64))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ weights) - 16
    steps = np.diff(lightness)
    assert (steps < 0).all()
    assert steps.std() < 0.35 * -steps.mean()


def test_a_volume_is_sampled_at_the_vertices_of_its_own_side():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-98, -134, -72)
    x = affine[0, 0] * np.arange(50) + affine[0, 3]
    volume = np.broadcast_to(np.where(x < 0, 0.6, 0.2)[:, None, None], (50, 60, 50))
    values = volume_on_surface(nib.Nifti1Image(volume.astype("f4"), affine))
    for side, planted in (("L", 0.6), ("R", 0.2)):
        assert len(values[side]) == 10242
        # The medial walls touch the midline; the rest lies well inside of its side.
        assert np.isclose(values[side], planted).mean() > 0.97


def test_voxels_without_a_score_are_left_out_of_the_surface():
    volume = np.full((40, 48, 40), np.nan, "f4")
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = (-100, -130, -80)
    volume[:, :10] = 0.4
    values = volume_on_surface(nib.Nifti1Image(volume, affine))
    known = values["L"][np.isfinite(values["L"])]
    assert 0 < len(known) < 10242
    np.testing.assert_allclose(known, 0.4, rtol=1e-6)


def test_a_single_voxel_survives_the_coarser_grid_at_its_place():
    volume = np.zeros((21, 20, 19), "f4")
    volume[13, 4, 9] = 0.7
    image = nib.Nifti1Image(volume, np.diag([1.0, 1.0, 1.0, 1.0]))
    coarse = coarsened(image)
    values = np.asarray(coarse.dataobj)
    assert coarse.header.get_zooms() == (2, 2, 2)
    assert values.max() == np.float32(0.7)
    place = nib.affines.apply_affine(coarse.affine, np.argwhere(values > 0)[0])
    assert np.abs(place - (13, 4, 9)).max() <= 0.5


@pytest.mark.parametrize(
    ("frame", "inside"),
    [
        ("MNI152NLin2009cAsym", True),
        ("MNI305", True),
        ("IXI549Space", True),
        ("fsaverage5", True),
        ("ACPC", False),
        ("T1w", False),
        ("Talairach", False),
        ("MNIInfant", False),
        ("MNIPediatricAsym", False),
        (None, False),
    ],
)
def test_only_adult_mni_space_is_drawn_on_the_mni_brain(frame: str, inside: bool):
    assert in_mni_family(frame) is inside


def test_contacts_in_mni_space_are_drawn_on_the_brain(study: Path):
    gallery = galleries(study, "01", "ieeg")["Contacts"]
    assert [p.alt.split(" with ")[0] for p in gallery.pictures] == ["Glass brain"] * 3
    assert gallery.notes == []


def test_contacts_in_another_frame_are_not_drawn_on_a_brain_and_the_reason_is_told(
    study: Path,
):
    gallery = galleries(study, "02", "ieeg")["Contacts"]
    (picture,) = gallery.pictures
    assert picture.alt.startswith("r along 3 shafts")
    assert "ACPC, which is not MNI space" in gallery.notes[0]


def test_images_in_native_space_are_drawn_without_a_template(study: Path):
    gallery = galleries(study, "01", "func", "space-T1w")["Maps"]
    assert all("axial slices" in picture.alt for picture in gallery.pictures)
    assert "not in MNI space" in gallery.notes[0]


def test_time_courses_name_the_planted_peak(study: Path):
    gallery = galleries(study, "01", "ieeg")["Time courses"]
    # Planted: vision in the superior temporal contacts, highest at 0.25 s.
    assert "in R Superior temporal" in gallery.pictures[0].alt
    time = float(gallery.pictures[0].alt.split(" at ")[1].split(" s")[0])
    assert abs(time - 0.25) <= 0.06


def test_fewer_than_eight_sensors_carry_no_topography(builders: SimpleNamespace):
    table = builders.sensors().head(7).assign(space="vision", r=0.1, q=np.nan)
    assert sensor_topography(table, (0.0, 0.5)) is None


def test_a_topography_shows_the_time_of_the_highest_mean(builders: SimpleNamespace):
    table = builders.sensors(np.array([0.0, 0.1, 0.2]))
    table = table.assign(space="vision", q=np.nan)
    table["r"] = np.where(table["time"] == 0.1, 0.3, 0.05)
    assert "vision, 0.1 s: highest 0.30" in sensor_topography(table, (0.0, 0.5)).alt


def test_histograms_give_medians_in_words():
    table = pd.DataFrame(
        {"space": ["vision"] * 3 + ["language"] * 3,
         "r": [0.1, 0.2, 0.3, 0.0, np.nan, 0.5], "q": np.nan}
    )  # fmt: skip
    alt = score_histograms(table).alt
    assert alt.endswith("medians: vision 0.20, language 0.25.")


def test_a_course_without_any_significance_is_drawn(builders: SimpleNamespace):
    table = builders.sensors(np.array([0.0, 0.1])).assign(space="a", r=0.1, q=np.nan)
    assert "No permutation test was run." in score_time_courses(table).caption


def test_an_empty_map_is_drawn_without_a_score():
    image = nib.Nifti1Image(np.full((5, 5, 5), np.nan, "f4"), np.diag([9, 9, 9, 1.0]))
    assert "highest 0.00" in glass_brain(image, (0, 0.1), name="vision").alt


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("LA3", ("LA", 3)),
        ("LA3-LA4", ("LA", 3)),
        ("A'12", ("A'", 12)),
        ("Cz", ("Cz", 0)),
    ],
)
def test_a_contact_tells_its_shaft_and_number(target: str, place: tuple[str, int]):
    assert shaft_of(target) == place
