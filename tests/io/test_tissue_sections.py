"""Sections of a study of tissue: what belongs together, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.io import spatial
from neuromm.io.tissue_sections import grid_kind, open_sections
from neuromm.simulate import make_tissue_slides


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    make_tissue_slides(
        2, folder=folder, sections_per_patient=2, side=4, n_genes=5, rng=0
    )
    return folder


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_table_names_spots_slides_and_patients(study):
    found = open_sections(study)
    assert [one.name for one in found] == ["P01_1", "P01_2", "P02_1", "P02_2"]
    assert [one.patient for one in found] == ["P01", "P01", "P02", "P02"]
    first = found[0]
    assert first.load().data.n_obs == 16
    assert first.open_slide(first.load().data).microns_per_pixel == 2.0
    assert {path.name for path in first.files} == {"P01_1.h5ad", "P01_1.png"}
    assert found == open_sections(study / "sections.tsv")
    kept = open_sections(study, names=["P02_1"])
    assert [one.name for one in kept] == ["P02_1"]
    with pytest.raises(UsageError, match=r"no section P9 \(found: P01_1"):
        open_sections(study, names=["P9"])


def test_sections_of_her2st_belong_to_the_patient_of_their_letter(tmp_path):
    for name in ("A1", "A2", "B1", "slideX"):
        written(tmp_path / "counts" / f"{name}.tsv", "\tG1\n1x1\t3\n")
    found = {one.name: one for one in open_sections(tmp_path)}
    assert [found[n].patient for n in ("A1", "A2", "B1")] == ["A", "A", "B"]
    assert not found["slideX"].knows_patient
    assert found["slideX"].patient == "slideX"
    written(tmp_path / "stnet" / "ST-cnts" / "BC23209_C1.tsv", "\tG1\n1x1\t3\n")
    (one,) = open_sections(tmp_path / "stnet")
    assert one.patient == "BC23209"


def test_hest_states_the_patient_and_studies_are_kept_apart(study, tmp_path):
    for name, title in (("TENX1", "one study"), ("NCBI2", "another")):
        target = tmp_path / "st" / f"{name}.h5ad"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((study / "spots" / "P01_1.h5ad").read_bytes())
        written(
            tmp_path / "metadata" / f"{name}.json",
            json.dumps({"patient": "Patient 1", "dataset_title": title}),
        )
    found = open_sections(tmp_path)
    assert [one.patient for one in found] == [
        "another Patient 1",
        "one study Patient 1",
    ]


def test_a_picture_that_contradicts_the_spots_is_refused_with_the_scale(
    study, tmp_path
):
    spots = study / "spots" / "P01_1.h5ad"
    picture = tmp_path / "small.png"
    with Image.open(study / "slides" / "P01_1.png") as whole:
        whole.resize((whole.width // 4, whole.height // 4)).save(picture)
    sidecar = {"PixelSize": [8.0, 8.0], "PixelSizeUnits": "um"}
    written(tmp_path / "small.json", json.dumps(sidecar))
    (section,) = open_sections(spots, slide=picture)
    adata = section.load().data
    with pytest.raises(DataError, match=r"state scale=0\.25"):
        section.open_slide(adata)
    (section,) = open_sections(spots, slide=picture, microns_per_pixel=2.0, scale=0.25)
    slide = section.open_slide(adata)
    assert slide.width == 4 * Image.open(picture).width


def test_a_slide_without_a_stated_size_takes_that_of_its_spots(study, tmp_path):
    picture = tmp_path / "plain.png"
    picture.write_bytes((study / "slides" / "P01_1.png").read_bytes())
    (section,) = open_sections(study / "spots" / "P01_1.h5ad", slide=picture)
    assert section.open_slide(section.load().data).microns_per_pixel == 2.0
    with pytest.raises(UsageError, match="size of a pixel"):
        section.open_slide()


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("section\tslide\nA\tno.png\n", "slide of A: no such file"),
        (
            "section\tpatient\nA\tP\n",
            "expected the columns section, and spots or slide",
        ),
        ("section\tspots\tcolour\nA\tx\tred\n", "has the columns colour, expected"),
        ("section\tspots\nA\tx\nA\tx\n", "must name sections, each once"),
        ("section\tspots\n../A\tx\n", "letters, digits"),
        ("section\tspots\tslide\nA\t\t\n", "neither spots nor a slide"),
        ("section\tslide\tscale\nA\treal.png\t-1\n", "scale of A must be a number"),
        ("", "no table of sections"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, row, match):
    Image.new("RGB", (8, 8)).save(tmp_path / "real.png")
    table = written(tmp_path / "sections.tsv", row)
    with pytest.raises((DataError, InputMissingError), match=match):
        open_sections(table)


def test_a_folder_without_sections_says_what_was_expected(tmp_path):
    with pytest.raises(InputMissingError, match=r"Expected sections\.tsv"):
        open_sections(tmp_path)
    with pytest.raises(InputMissingError, match="no such file or folder"):
        open_sections(tmp_path / "none")


def test_one_slide_is_not_given_to_several_sections(study, tmp_path):
    with pytest.raises(UsageError, match="one slide was given for 4 sections"):
        open_sections(study, slide=study / "slides" / "P01_1.png")


def test_the_kind_of_an_array_is_told_by_its_columns(study, tmp_path):
    square = spatial.load(study / "spots" / "P01_1.h5ad").data
    assert grid_kind(square) == "st"
    hexagonal = spatial.load(spatial.write_example(tmp_path)).data
    assert grid_kind(hexagonal) == "visium"


def test_a_slide_is_a_section_without_spots(study):
    (section,) = open_sections(study / "slides" / "P02_1.png")
    assert section.spots is None
    assert np.isclose(section.open_slide().microns_per_pixel, 2.0)
    with pytest.raises(InputMissingError, match="a slide and no spots"):
        section.load()
