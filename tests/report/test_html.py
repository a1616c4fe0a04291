import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuromm.core import DataError, InputMissingError
from neuromm.report import write_group_report, write_subject_report, write_unit


class Page(HTMLParser):
    """Elements, links and text of a report."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="session", params=["sub-01.html", "group.html"])
def page(request: pytest.FixtureRequest, reported: Path) -> Page:
    return Page(reported / request.param)


def test_a_report_loads_nothing_from_outside(page: Page):
    assert not re.search(r"https?://|//[a-z]+\.|url\(|@import|<script", page.source)
    for _, attrs in page.elements:
        for name in ("src", "href"):
            target = attrs.get(name, "#")
            assert re.match(r"data:image/png;base64,|#|sub-\w+\.html$", target)
    policy = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_a_report_says_that_it_is_for_research_alone(page: Page):
    assert "Research use only. Not a medical device" in " ".join(page.text)


def test_pictures_and_tables_are_told_in_words(page: Page):
    assert page.all("img")
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert page.all("html") == [{"lang": "en"}]


def test_headings_skip_no_level_and_links_find_their_place(page: Page):
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    inner = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert set(inner) <= set(ids)


@pytest.mark.slow
def test_reports_built_again_elsewhere_have_the_same_bytes(
    output: Path, tmp_path: Path, builders: SimpleNamespace
):
    builders.write_volume_unit(output, spacing_mm=12)
    builders.write_ieeg_unit(output, frame="ACPC")
    moved = tmp_path / "another" / "place"
    shutil.copytree(output, moved)
    first = [write_subject_report(output, "01"), write_group_report(output)]
    second = [write_subject_report(moved, "sub-01"), write_group_report(moved)]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_summary_shows_the_numbers_of_the_sidecars(reported: Path):
    text = " ".join(" ".join(Page(reported / "sub-01.html").text).split())
    for path in (reported / "sub-01").rglob("*_scores.json"):
        for numbers in json.loads(path.read_text())["Summary"].values():
            assert f"{numbers['max_r']:.3f}" in text
            assert f"{numbers['n_scored']:,} of {numbers['n_targets']:,}" in text


def test_warnings_and_unscored_targets_are_shown(reported: Path):
    text = " ".join(Page(reported / "sub-01.html").text)
    assert "alpha lies at the largest value for 21 % of the voxels" in text
    path = next((reported / "sub-01" / "func").glob("*MNI152*_scores.tsv"))
    unscored = [line.split("\t")[0] for line in path.read_text().splitlines()[1:4]]
    assert "targets could not be scored" in text
    assert f"in vision, language, joint: {', '.join(unscored)}" in text


def test_labels_from_data_are_escaped(output: Path, builders: SimpleNamespace):
    space = builders.Points(builders.contacts(), None)
    evil = "<script>alert(1)</script>"
    results = builders.results_of(space, builders.bumps(space, builders.CENTRES))
    write_unit(
        output,
        {"subject": "01"},
        "ieeg",
        {f"vision {evil}": results["vision"]},
        regions=[evil] * space.n_targets,
        design={"note": evil},
        warnings=[evil],
    )
    page = Page(write_subject_report(output, "01"))
    assert page.all("script") == []
    assert any(evil in text for text in page.text)


def test_a_unit_without_any_score_is_reported(output: Path, builders: SimpleNamespace):
    space = builders.Points(builders.contacts(), "MNI152NLin2009cAsym")
    nothing = space.table["x"].to_numpy() * float("nan")
    results = builders.results_of(space, {"vision": nothing}, tested=False)
    write_unit(output, {"subject": "01"}, "ieeg", results)
    page = Page(write_subject_report(output, "01"))
    assert "0 of 24" in " ".join(page.text)


def test_a_subject_without_scores_is_an_error_that_names_the_cure(output: Path):
    with pytest.raises(InputMissingError, match="run the participant level first"):
        write_subject_report(output, "07")
    with pytest.raises(InputMissingError, match="run the participant level first"):
        write_group_report(output)
    assert not list(output.glob("*.html"))


def test_a_table_without_its_sidecar_is_an_error_that_names_it(
    output: Path, builders: SimpleNamespace
):
    paths = builders.write_eeg_unit(output)
    paths[1].unlink()
    with pytest.raises(DataError, match=r"scores.tsv: its sidecar .*json is missing"):
        write_subject_report(output, "01")


def test_the_page_names_the_data_set_so_that_a_simulated_one_says_so(
    reported: Path, tmp_path: Path
):
    output = shutil.copytree(reported, tmp_path / "named")
    described = output / "dataset_description.json"
    content = json.loads(described.read_text()) | {"Name": "Simulated film <1>"}
    described.write_text(json.dumps(content))
    assert "<p>Simulated film &lt;1&gt;</p>" in write_group_report(output).read_text()
