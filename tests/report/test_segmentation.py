"""Discs on disk and in the report are those that were found, where they were found."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from neuromm.core import DataError, InputMissingError, Provenance, UsageError
from neuromm.models import disc_regions
from neuromm.models.ivdnet import CARD
from neuromm.report import (
    prepare_segmentation,
    write_segment_report,
    write_segment_summary,
    write_segmentation,
)
from neuromm.report.segmentation_pictures import (
    disc_slices,
    mid_sagittal,
    reliability_diagram,
)
from neuromm.simulate import make_dixon_spines

NOTICE = "Simulated scans: no result about a patient"
ENTITIES = {"subject": "01", "session": "a", "suffix": "T1w"}
STEM = "sub-01_ses-a_space-orig_desc-disc_"


@pytest.fixture(scope="module")
def found():
    """Discs of a simulated scan, one voxel off, with what goes with them."""
    (spine,) = make_dixon_spines(1, shape=(12, 80, 80), tilt_deg=10, rng=0)
    truth = spine.discs > 0
    stated = ndimage.gaussian_filter(truth.astype(float), 0.7)
    doubt = 1 - np.abs(2 * stated - 1)
    return {
        "regions": disc_regions(
            np.roll(truth, 1, axis=1),
            spine.affine,
            probabilities=stated,
            uncertainty=doubt,
        ),
        "image": nibabel.Nifti1Image(spine.images["wat"], spine.affine),
        "probabilities": stated,
        "uncertainty": doubt,
        "reference": disc_regions(truth, spine.affine, smallest_mm3=0),
    }


def write(root: Path, found, entities=ENTITIES, **changes) -> list[Path]:
    settings = {
        "card": CARD,
        "settings": {"modalities": ["fat", "wat"], "n_passes": 4, "scaling": "zscore"},
        "notice": NOTICE,
        "warnings": ["wat was resampled"],
        "provenance": Provenance(versions={"neuromm": "0.1"}, seed=3, wall_time=1.5),
        "sources": [root.parent / "scans" / "01" / "01_fat.nii"],
    }
    given = {**found, **settings, **changes}
    return write_segmentation(root, entities, given.pop("regions"), **given)


@pytest.fixture(scope="module")
def written(found, tmp_path_factory) -> Path:
    """An output folder of one scan with a reference and its report; not to change."""
    base = tmp_path_factory.mktemp("segmented")
    (base / "scans").mkdir()
    prepare_segmentation(base / "out", base / "scans")
    write(base / "out", found)
    write_segment_report(base / "out", "01")
    return base / "out"


def anat(root: Path, name: str) -> Path:
    return root / "sub-01" / "ses-a" / "anat" / (STEM + name)


def test_masks_and_maps_lie_on_the_grid_of_the_scan(written, found):
    regions = found["regions"]
    for name, expected in (
        ("dseg.nii.gz", regions.labels),
        ("probseg.nii.gz", found["probabilities"].astype("f4")),
    ):
        image = nibabel.load(anat(written, name))
        np.testing.assert_array_equal(image.dataobj, expected)
        np.testing.assert_allclose(image.affine, regions.affine, atol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["sform_code"] == 1
    labels = pd.read_csv(anat(written, "dseg.tsv"), sep="\t")
    assert list(labels["index"]) == [0, *regions.table["label"]]
    assert labels["color"].str.fullmatch("#[0-9A-F]{6}").all()


def test_tables_hold_the_discs_and_sidecars_say_what_every_column_is(written, found):
    table = pd.read_csv(anat(written, "regions.tsv"), sep="\t")
    # Six figures are written.
    pd.testing.assert_frame_equal(
        table, found["regions"].table, check_dtype=False, rtol=1e-5
    )
    for name in ("regions", "scores"):
        columns = pd.read_csv(anat(written, f"{name}.tsv"), sep="\t").columns
        sidecar = json.loads(anat(written, f"{name}.json").read_text())
        for column in columns:
            assert sidecar[column]["Description"], column
            if column.startswith("centre_") or column.endswith(("_mm", "_mm3")):
                assert sidecar[column]["Units"].startswith("mm"), column
    sidecar = json.loads(anat(written, "regions.json").read_text())
    assert sidecar["Scores"]["mean_localisation_distance_mm"] == pytest.approx(2)
    assert sidecar["ModelCard"]["name"] == "IVDNet"
    assert sidecar["Provenance"]["seed"] == 3
    assert "wall_time_s" not in sidecar["Provenance"]
    assert sidecar["Segmentation"]["scaling"] == "zscore"
    assert sidecar["Sources"] == ["bids:raw:01/01_fat.nii"]


def test_the_same_scan_gives_the_same_bytes(written, found, tmp_path):
    (tmp_path / "scans").mkdir()
    prepare_segmentation(tmp_path / "out", tmp_path / "scans")
    write(tmp_path / "out", found)
    write_segment_report(tmp_path / "out", "01")
    assert digests(tmp_path / "out") == digests(written)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_no_file_tells_where_it_was_made(written):
    place = str(written.parent)
    for path in written.rglob("*"):
        if path.suffix in (".json", ".tsv", ".html", ".svg", ".md"):
            assert place not in path.read_text(), path.name


def test_the_output_passes_the_bids_validator(written):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    ended = subprocess.run(
        [validator, str(written), "--format", "json"], capture_output=True, text=True
    )
    issues = json.loads(ended.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_the_report_holds_what_the_tables_hold_and_needs_nothing_else(written, found):
    page = (written / "sub-01.html").read_text()
    assert "Research use only" in page
    assert page.count(NOTICE) >= 1
    assert "5 discs were found, 5 are in the reference." in page
    assert "wat was resampled" in page
    assert CARD.limits[1] in page
    for row in found["regions"].table.itertuples():
        assert f">{row.volume_mm3 / 1000:.2f}<" in page
        assert f">{row.centre_z:.1f}<" in page
    assert page.count("<img") == 3
    assert page.count('src="data:image/png') == 3
    assert "http" not in page.replace("http-equiv", "")
    figures = list((written / "sub-01" / "figures").glob("*.svg"))
    assert len(figures) == 3
    for figure in figures:
        assert NOTICE in figure.read_text()


def test_what_an_earlier_run_wrote_and_this_one_did_not_is_gone(found, tmp_path):
    classes = np.where(found["regions"].labels > 0, 2, 0)
    names = ("background", "vertebra", "disc")
    first = write(tmp_path, found, classes=classes, class_names=names, image=None)
    other = tmp_path / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz"
    other.write_bytes(b"of somebody else")
    second = write(tmp_path, found, reference=None, image=None)
    assert len(first) - len(second) == 2 + 3 + 3  # scores, calibration, classes
    assert not {p for p in set(first) - set(second) if p.exists()}
    assert all(path.exists() for path in [*second, other])
    write_segment_report(tmp_path, "sub-01")
    page = (tmp_path / "sub-01.html").read_text()
    assert "5 discs were found." in page
    assert "Against the reference" not in page
    assert "No image was given" in page


def test_all_classes_are_written_with_their_names(found, tmp_path):
    classes = np.where(found["regions"].labels > 0, 2, 0)
    names = ("background", "vertebra", "disc")
    told = {"classes": classes, "image": None, "reference": None}
    write(tmp_path, found, **told, class_names=names)
    stem = "sub-01/ses-a/anat/sub-01_ses-a_space-orig_desc-classes_dseg"
    image = nibabel.load(tmp_path / f"{stem}.nii.gz")
    np.testing.assert_array_equal(image.dataobj, classes)
    table = pd.read_csv(tmp_path / f"{stem}.tsv", sep="\t")
    assert tuple(table["name"]) == names
    with pytest.raises(UsageError, match="name every class"):
        write(tmp_path, found, **told, class_names=names[:2])


def test_a_scan_without_discs_is_reported_as_such(found, tmp_path):
    regions = found["regions"]
    empty = disc_regions(np.zeros(regions.labels.shape, bool), regions.affine)
    write(tmp_path, {**found, "regions": empty})
    page = write_segment_report(tmp_path, "01").read_text()
    assert "0 discs were found, 5 are in the reference." in page
    assert page.count("missed<") == 5
    assert page.count("<img") == 3


def test_what_is_not_there_or_does_not_fit_is_refused(found, tmp_path):
    with pytest.raises(InputMissingError, match="neuromm segment"):
        write_segment_report(tmp_path, "07")
    with pytest.raises(UsageError, match="uncertainty must have the shape"):
        write(tmp_path, found, uncertainty=np.zeros((2, 2, 2)))
    with pytest.raises(UsageError, match="need a subject"):
        write_segmentation(tmp_path, {"session": "a"}, found["regions"])
    moved = found["image"].affine.copy()
    moved[0, 3] += 4
    elsewhere = nibabel.Nifti1Image(np.asarray(found["image"].dataobj), moved)
    with pytest.raises(DataError, match="not on one grid"):
        write(tmp_path, found, image=elsewhere, reference=None)
    assert not list(tmp_path.iterdir())  # nothing half-written
    write(tmp_path, found, image=None, reference=None)
    anat(tmp_path, "regions.json").unlink()
    with pytest.raises(DataError, match="has no sidecar"):
        write_segment_report(tmp_path, "01")


def test_the_summary_is_the_mean_over_scans_that_have_a_reference(found, tmp_path):
    regions = found["regions"]
    half = np.where(regions.labels <= 2, regions.labels, 0) > 0
    fewer = disc_regions(half, regions.affine)
    bare = {"image": None, "probabilities": None}
    write(tmp_path, found, {"subject": "02"}, **bare)
    write(tmp_path, {**found, "regions": fewer}, {"subject": "01", "run": "1"}, **bare)
    write(tmp_path, found, {"subject": "01", "run": "2"}, **bare, reference=None)
    page = write_segment_summary(tmp_path).read_text()
    table = pd.read_csv(tmp_path / "segmentation.tsv", sep="\t")
    assert list(table["scan"]) == ["sub-01_run-1", "sub-02"]
    assert list(table["n_found"]) == [2, 5]
    assert list(table["n_true"]) == [5, 5]
    assert table["dice"][0] < table["dice"][1]
    for name in ("dice", "hausdorff_mm"):
        places = 3 if name == "dice" else 2
        assert f">{table[name].mean():.{places}f}<" in page
        assert f">{table[name].std(ddof=1):.{places}f}<" in page
    assert NOTICE in page
    discs = pd.read_csv(tmp_path / "figures" / "scores_by_disc.tsv", sep="\t")
    assert len(discs) == 10
    assert "3 discs had no match" in page
    described = json.loads((tmp_path / "segmentation.json").read_text())
    assert set(described) == set(table)


def test_a_summary_needs_a_reference(found, tmp_path):
    write(tmp_path, found, image=None, reference=None)
    with pytest.raises(InputMissingError, match="reference masks"):
        write_segment_summary(tmp_path)


# --- pictures ---------------------------------------------------------------------


def bright(drawing) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the largest white patch in the first panel.

    In parts of the panel, from its left and its top.
    """
    import matplotlib.image

    pixels = matplotlib.image.imread(io.BytesIO(drawing.png))[..., :3].min(axis=2)
    box = drawing.figure.axes[0].get_window_extent()
    height = pixels.shape[0]
    panel = pixels[
        height - int(box.y1) : height - int(box.y0), int(box.x0) : int(box.x1)
    ]
    patches, n_patches = ndimage.label(panel > 0.98)
    sizes = ndimage.sum_labels(panel > 0, patches, range(1, n_patches + 1))
    rows, columns = ndimage.find_objects(patches)[int(np.argmax(sizes))]
    n_rows, n_columns = panel.shape
    return (
        columns.start / n_columns,
        columns.stop / n_columns,
        rows.start / n_rows,
        rows.stop / n_rows,
    )


@pytest.mark.parametrize("codes", ["RAS", "LPI", "ASR", "SLP"])
def test_anterior_is_at_the_left_superior_at_the_top_and_a_square_is_a_square(codes):
    spacing = {"R": 5.0, "A": 1.0, "S": 2.5}
    shape = {"R": 9, "A": 120, "S": 60}
    pairs = {"L": "R", "P": "A", "I": "S"}
    affine, sides = np.zeros((4, 4)), []
    affine[3, 3] = 1
    for axis, code in enumerate(codes):
        name = pairs.get(code, code)
        sides.append(shape[name])
        step = spacing[name] * (1 if name == code else -1)
        affine["RAS".index(name), axis] = step
        affine["RAS".index(name), 3] = 0 if step > 0 else -step * (shape[name] - 1)
    world = np.einsum("ab,b...->a...", affine[:3, :3], np.indices(sides))
    _, front, up = world + affine[:3, 3, None, None, None]
    # A square of 30 mm in front of a disc in the middle, and above it.
    square = (front >= 75) & (front < 105) & (up >= 85) & (up < 115)
    disc = (abs(front - 60) < 10) & (abs(up - 75) < 5)
    regions = disc_regions(disc, affine, smallest_mm3=0)
    image = nibabel.Nifti1Image(square.astype(np.float32), affine)
    view = mid_sagittal(image, regions)
    left, right, top, bottom = bright(view)
    axes = view.figure.axes[0]
    width, height = (
        abs(np.diff(limits())[0]) for limits in (axes.get_xlim, axes.get_ylim)
    )
    assert right < 0.5
    assert bottom < 0.5
    # A row or a column of the picture is about 0.5 mm, and letters stand at its edge.
    assert (right - left) * width == pytest.approx(30, abs=2)
    assert (bottom - top) * height == pytest.approx(30, abs=2)


def test_outlines_run_along_the_voxels_and_numbers_stand_at_the_centres(found):
    drawing = mid_sagittal(
        found["image"], found["regions"], uncertainty=found["uncertainty"], mark=NOTICE
    )
    axes, doubt = drawing.figure.axes[:2]
    numbers = {text.get_text(): text.get_position() for text in axes.texts}
    heights = [numbers[str(n)][1] for n in range(1, 6)]
    assert heights == sorted(heights)
    assert np.diff(heights) == pytest.approx(22 * np.cos(np.deg2rad(10)), abs=1.5)
    # Outlines: the perimeter of the mask in the slice that is shown.
    title = drawing.figure.texts[0].get_text()
    middle = int(title.removeprefix("Discs, slice ").split()[0])
    mask = np.pad(found["regions"].labels[middle - 1] > 0, 1)
    edges = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    assert len(axes.collections[0].get_segments()) == edges
    shown = doubt.images[0].get_array()
    assert float(shown.max()) == pytest.approx(
        found["uncertainty"][middle - 1].max(), abs=1e-6
    )
    assert np.abs(drawing.table["offset_mm"]).max() < 4  # a slice is 4 mm thick


def test_slices_go_from_left_to_right_and_hold_the_area_of_disc(found):
    drawing = disc_slices(found["image"], found["regions"])
    table = drawing.table
    assert (np.diff(table["slice"]) > 0).all()
    labels = found["regions"].labels
    areas = [(labels[n - 1] > 0).sum() * 4.0 for n in table["slice"]]  # 2 x 2 mm
    np.testing.assert_allclose(table["area_mm2"], areas)


def test_a_calibrated_model_lies_on_the_line():
    table = pd.DataFrame(
        {
            "low": [0.0, 0.5],
            "high": [0.5, 1.0],
            "n_samples": [10, 0],
            "confidence": [0.2, np.nan],
            "frequency": [0.2, np.nan],
        }
    )
    drawing = reliability_diagram(table, 0.0, mark=NOTICE)
    points = drawing.figure.axes[0].lines[1].get_xydata()
    np.testing.assert_allclose(points, [[0.2, 0.2]])
    assert "Marked" in drawing.alt
