"""The page of predicted expression tells what was given, of this section alone."""

import hashlib
import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from neuromm.core import DataError, OutputError, UsageError
from neuromm.metrics import expression_correlation
from neuromm.models.gene_dml import CARD
from neuromm.prepare.expression import expression
from neuromm.report import ExpressionSectionScores, write_expression_page
from neuromm.report.figures.expression_maps import (
    SpotPlaces,
    gene_maps,
    slide_picture,
)
from neuromm.simulate import make_tissue_sections

PIXEL_UM, PITCH_UM, DIAMETER_UM = 0.5, 200.0, 100.0
GENES = ["<b>", "$x_1$", "A&B", "ACTB", "KRT5", "MUC1", "CD3E", "none"]
TOLD = {
    "model": "GeneDML",
    "encoder": "planted",
    "is_stand_in": True,
    "log_base": "10",
    "library": "panel",
    "target_sum": 1e4,
    "panel": GENES,
    "trained_on": ["P03", "P04"],
    "patient": "P01",
    "notice": "Simulated sections: no result about a patient",
    "versions": {"neuromm": "0.1.dev7"},
}


def section(number: int = 0, *, measured: bool = True, **changes) -> anndata.AnnData:
    """A planted section; its prediction is half of the truth, and its last gene 0."""
    planted = make_tissue_sections(2, side=6, n_genes=len(GENES), rng=3)[number]
    counts = planted.counts.copy()
    counts[:, -1] = 0
    names = [f"{planted.patient}_{spot}" for spot in planted.features.spots]
    adata = expression(
        anndata.AnnData(
            counts,
            obs=pd.DataFrame({"section": planted.patient}, index=names),
            var=pd.DataFrame(index=GENES),
        ),
        log_base="10",
    )
    noise = np.random.default_rng(number).standard_normal(adata.shape)
    adata.layers["predicted"] = (0.5 * adata.X + 0.2 * noise).astype("f4")
    if measured:
        adata.layers["observed"] = adata.X.copy()
    grid = planted.features.grid
    adata.obsm["spatial"] = (1000 + grid[:, ::-1] * PITCH_UM / PIXEL_UM).astype(float)
    scales = {
        "microns_per_pixel": PIXEL_UM,
        "spot_diameter_fullres": DIAMETER_UM / PIXEL_UM,
    }
    adata.uns["spatial"] = {planted.patient: {"scalefactors": scales}}
    adata.uns["neuromm"] = {"express": {**TOLD, **changes}}
    return adata


def scores_of(adata: anndata.AnnData, **changes) -> ExpressionSectionScores:
    labels = adata.obs["section"]
    found = expression_correlation(
        adata.layers["predicted"], adata.layers["observed"], labels
    )
    ridge = found.by_gene[0] - 0.1
    given = {
        "models": {
            "GeneDML": {
                "pcc": found.pcc,
                "pcc_h": 0.98765,
                "mse": found.mse,
                "mae": found.mae,
                "gsc": -0.1234,
                "ssc": np.nan,
            },
            "ridge": {"pcc": found.pcc - 0.1, "mse": 7.5},
        },
        "genes": pd.DataFrame(
            {"gene": GENES, "pcc": found.by_gene[0], "pcc_ridge": ridge}
        ),
        "intervals": {"GeneDML": {"pcc": (0.11111, 0.99999)}},
        "interval": "95 % of spots",
        "n_highly": 3,
    }
    return ExpressionSectionScores(**{**given, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A page with everything; not to change."""
    root = tmp_path_factory.mktemp("made") / "express"
    adata = section()
    write_expression_page(
        root,
        "P01",
        adata,
        scores=scores_of(adata),
        thumbnail=np.full((420, 440, 3), 200, dtype=np.uint8),
        thumbnail_scale=0.1,
        card=CARD,
        warnings=["<script>alert(1)</script>"],
        n_shown=3,
    )
    return root


@pytest.fixture(scope="module")
def page(written) -> str:
    return (written / "P01_report.html").read_text()


def row(page: str, name: str) -> list[str]:
    """Cells of the table row that begins with a name, as text."""
    for found in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", page):
        cells = re.split(r"</t[hd]>(?:<td[^>]*>)?", found)
        if cells[0].removesuffix(" *") == html.escape(name):
            return [html.unescape(cell) for cell in cells[1:] if cell]
    raise AssertionError(f"no row {name}")


def test_scores_on_the_page_are_those_given_and_what_is_not_known_is_n_a(page):
    given = scores_of(section())
    own, ridge = given.models["GeneDML"], given.models["ridge"]
    assert row(page, "PCC(A)")[:2] == [
        f"{own['pcc']:.3f} [0.111, 1.000]",
        f"{ridge['pcc']:.3f}",
    ]
    unit = "log10(1 + CP10k)"
    assert row(page, "PCC(H)")[:2] == ["0.988", "n/a"]
    assert row(page, f"MSE ({unit}, squared)")[:2] == [f"{own['mse']:.3f}", "7.500"]
    assert row(page, f"MAE ({unit})")[:2] == [f"{own['mae']:.3f}", "n/a"]
    assert row(page, "GSC")[:2] == ["-0.123", "n/a"]
    assert row(page, "SSC")[:2] == ["n/a", "n/a"]
    assert "Brackets: 95 % of spots" in page
    assert not re.search(r"\bnan\b", page)


def test_genes_on_the_page_and_on_disk_are_those_given(written, page):
    given = scores_of(section()).genes.set_index("gene")
    stored = pd.read_csv(
        written / "P01_report_genes.tsv", sep="\t", na_values="n/a", index_col="gene",
        keep_default_na=False,
    )  # fmt: skip
    for gene, one in given.iterrows():
        shown = ["n/a"] * 2 if np.isnan(one["pcc"]) else [f"{v:.3f}" for v in one]
        assert row(page, gene)[:2] == shown, gene
    # Six figures are written.
    pd.testing.assert_frame_equal(
        stored.loc[given.index, ["pcc", "pcc_ridge"]], given, rtol=1e-5
    )
    adata = section()
    np.testing.assert_allclose(
        stored.loc[GENES, "measured_sd"], adata.X.std(axis=0), rtol=1e-4
    )
    scores = pd.read_csv(written / "P01_report_scores.tsv", sep="\t", na_values="n/a")
    stored = scores.set_index(["model", "measure"])
    assert stored.loc[("ridge", "mse"), "value"] == 7.5
    assert stored.loc[("GeneDML", "pcc"), "low"] == pytest.approx(0.11111)
    assert np.isnan(stored.loc[("GeneDML", "ssc"), "value"])


def test_genes_that_do_not_vary_are_counted_and_never_among_the_best(written, page):
    assert "1 of 8 genes does not vary in this section" in page
    stored = pd.read_csv(written / "P01_report_genes.tsv", sep="\t", na_values="n/a")
    assert stored["gene"].iloc[-1] == "none"
    given = scores_of(section()).genes
    best = given.nlargest(3, "pcc")["gene"]
    maps = pd.read_csv(written / "figures" / "P01_report_maps.tsv", sep="\t")
    assert list(dict.fromkeys(maps["gene"])) == list(best)
    assert set(stored.loc[stored["shown"], "gene"]) == set(best)
    assert "3 of 8 genes with the highest correlation" in page
    assert "the best cases, not typical ones" in page


def test_the_choice_of_the_genes_of_pcc_h_is_stated(tmp_path, page):
    assert "The 3 genes of PCC(H) were chosen on the very spots that are scored" in page
    adata = section()
    scores = scores_of(adata, highly_chosen_on="train")
    path = write_expression_page(
        tmp_path, "P01", adata, scores=scores, card=CARD, n_shown=1
    )
    assert "were chosen on the training sections" in path.read_text()


def test_names_are_shown_as_they_are_and_never_become_markup(written, page):
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    for name in ("maps", "correlations", "slide"):
        svg = written / "figures" / f"P01_report_{name}.svg"
        ET.parse(svg)
    places, predicted = few_places(), pd.DataFrame({"$x_1$": [0.0, 1.0, 2.0]})
    drawing = gene_maps(places, predicted, None, unit="u")
    assert b">$x_1$</text>" in drawing.svg


def test_a_stand_in_is_said_on_the_page_in_each_figure_and_each_table(written, page):
    assert "STAND-IN: the encoder planted stands in for a trained" in page
    assert page.count("planted (stand-in)") >= 3
    assert TOLD["notice"] in page
    for svg in (written / "figures").glob("*.svg"):
        assert "stand-in encoder planted" in svg.read_text(), svg.name
    for table in written.glob("*.tsv"):
        stored = pd.read_csv(table, sep="\t")
        assert (stored["encoder"] == "planted (stand-in)").all()


def test_a_trained_encoder_is_not_called_a_stand_in(tmp_path):
    adata = section(is_stand_in=False, notice="", encoder="uni")
    path = write_expression_page(tmp_path, "P01", adata, card=CARD, n_shown=1)
    assert "stand-in" not in path.read_text().lower()
    for svg in (tmp_path / "figures").glob("*.svg"):
        assert "stand-in" not in svg.read_text()


def test_spots_of_other_sections_are_on_no_page(tmp_path):
    both = anndata.concat([section(0), section(1)], uns_merge="unique")
    both.uns["spatial"] = section(0).uns["spatial"] | {
        "P02": {"scalefactors": {"microns_per_pixel": 2.0, "spot_diameter_fullres": 9}}
    }
    both.uns["neuromm"] = section(0).uns["neuromm"]
    write_expression_page(tmp_path / "both", "P01", both, card=CARD, n_shown=1)
    write_expression_page(tmp_path / "own", "P01", section(0), card=CARD, n_shown=1)
    assert digests(tmp_path / "both") == digests(tmp_path / "own")
    spots = (tmp_path / "both" / "figures" / "P01_report_slide.tsv").read_text()
    assert "P02" not in spots
    assert spots.count("P01_") == 36


def test_the_same_prediction_gives_the_same_bytes_also_through_a_file(tmp_path):
    adata = section()
    before = adata.copy()
    scores = scores_of(adata)
    write_expression_page(
        tmp_path / "one", "P01", adata, scores=scores, card=CARD, n_shown=1
    )
    for name, layer in before.layers.items():
        np.testing.assert_array_equal(adata.layers[name], layer)
    assert adata.uns["neuromm"]["express"] == before.uns["neuromm"]["express"]
    adata.write_h5ad(tmp_path / "P01.h5ad")
    read = anndata.read_h5ad(tmp_path / "P01.h5ad")
    write_expression_page(
        tmp_path / "two", "P01", read, scores=scores, card=CARD, n_shown=1
    )
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_page_needs_no_other_file_and_tells_no_place(written, page):
    assert page.count("<img") == page.count('src="data:image/png') == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "Research use only" in page
    for path in written.rglob("*"):
        if path.suffix in (".json", ".tsv", ".html", ".svg"):
            assert str(written.parent) not in path.read_text(), path.name


def test_measurements_that_were_smoothed_are_said_to_be(tmp_path, page):
    told = "What was measured is the mean over a spot and its neighbours"
    assert told not in page
    adata = section()
    adata.uns["neuromm"]["expression"] = {"smoothed": True}
    path = write_expression_page(tmp_path, "P01", adata, card=CARD, n_shown=1)
    assert told in path.read_text()


def test_what_was_trained_on_is_said_and_a_leak_is_a_warning(tmp_path, page):
    assert row(page, "Sections trained on") == ["2: P03, P04"]
    assert "one of those that the model was trained on" not in page
    adata = section(trained_on=["P01", "P04"])
    path = write_expression_page(tmp_path, "P01", adata, card=CARD, n_shown=1)
    assert "Section P01 is one of those that the model was trained on" in (
        path.read_text()
    )


def test_scores_without_a_ridge_probe_are_a_warning(tmp_path, page):
    assert "No ridge probe was scored" not in page
    adata = section()
    alone = {"GeneDML": scores_of(adata).models["GeneDML"]}
    scores = scores_of(adata, models=alone)
    path = write_expression_page(
        tmp_path, "P01", adata, scores=scores, card=CARD, n_shown=1
    )
    assert "No ridge probe was scored" in path.read_text()


def test_without_measurements_the_genes_that_vary_most_are_drawn(tmp_path):
    adata = section(measured=False)
    path = write_expression_page(tmp_path, "P01", adata, card=CARD, n_shown=2)
    spread = pd.Series(adata.layers["predicted"].std(axis=0), index=GENES)
    maps = pd.read_csv(tmp_path / "figures" / "P01_report_maps.tsv", sep="\t")
    assert list(dict.fromkeys(maps["gene"])) == list(spread.nlargest(2).index)
    assert "measured" not in maps
    page = path.read_text()
    assert "whose predictions vary most over spots" in page
    assert "not measured here" in page
    assert 'id="scores"' not in page


def test_what_an_earlier_page_wrote_and_this_one_did_not_is_gone(tmp_path):
    adata = section()
    given = {"card": CARD, "n_shown": 1}
    write_expression_page(tmp_path, "P01", adata, scores=scores_of(adata), **given)
    write_expression_page(tmp_path, "P02", section(1), **given)
    other = set(tmp_path.rglob("P02*"))
    write_expression_page(tmp_path, "P01", adata, **given)
    left = {path.name for path in tmp_path.rglob("P01*")}
    assert "P01_report_scores.tsv" not in left
    assert "P01_report_correlations.svg" not in left
    assert set(tmp_path.rglob("P02*")) == other


def test_nothing_is_written_where_something_is_wrong(tmp_path):
    adata = section()
    adata.layers["predicted"][3, 2] = np.nan
    with pytest.raises(DataError, match="predicted expression holds nan"):
        write_expression_page(tmp_path / "new", "P01", adata, card=CARD, n_shown=1)
    assert not (tmp_path / "new").exists()


def test_a_page_appears_only_when_all_that_it_names_lies_beside_it(tmp_path):
    adata = section()
    (tmp_path / "P01_report_genes.tsv" / "taken").mkdir(parents=True)
    with pytest.raises(OutputError, match="P01_report_genes"):
        write_expression_page(tmp_path, "P01", adata, card=CARD, n_shown=1)
    assert not (tmp_path / "P01_report.html").exists()
    assert not list(tmp_path.rglob("*.tmp-*"))


def few_places() -> SpotPlaces:
    return SpotPlaces(
        np.array(["a", "b", "c"]), np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.5, 4.0]),
        0.1,
    )  # fmt: skip


def test_predicted_and_measured_share_a_scale_and_each_gene_has_its_own():
    rng = np.random.default_rng(0)
    places = SpotPlaces(np.arange(50).astype(str), rng.random(50), rng.random(50), 0.01)
    predicted = pd.DataFrame(rng.random((50, 3)) * [1, 2, 3], columns=list("abc"))
    measured = 2 * predicted + 1
    drawing = gene_maps(places, predicted, measured, unit="u")
    maps = [one for axes in drawing.figure.axes for one in axes.collections]
    maps = [
        one
        for one in maps
        if one.get_array() is not None and len(one.get_offsets()) == 50
    ]
    assert len(maps) == 6
    for number, gene in enumerate("abc"):
        ours, truth = maps[2 * number : 2 * number + 2]
        np.testing.assert_array_equal(ours.get_array(), predicted[gene])
        np.testing.assert_array_equal(truth.get_array(), measured[gene])
        joined = np.concatenate([predicted[gene], measured[gene]])
        assert ours.get_clim() == truth.get_clim()
        np.testing.assert_allclose(ours.get_clim(), np.percentile(joined, (1, 99)))
    assert len({one.get_clim() for one in maps}) == 3


def test_a_gene_of_one_value_has_a_map_too():
    flat = pd.DataFrame({"none": [0.0, 0.0, 0.0]})
    drawing = gene_maps(
        few_places(), flat, flat, unit="u", correlations={"none": np.nan}
    )
    assert b"none, r n/a" in drawing.svg
    (low, high), *_ = [one.get_clim() for one in drawing.figure.axes[0].collections]
    assert low < 0 < high


def test_circles_lie_on_the_thumbnail_where_the_spots_lie_on_the_slide():
    pixel_um, scale = 0.5, 0.1
    spots_px = np.array([[400.0, 900.0], [2600.0, 700.0], [1500.0, 3100.0]])
    x_mm, y_mm = (spots_px * pixel_um / 1000).T
    thumbnail = np.full((400, 300, 3), 255, dtype=np.uint8)
    places = SpotPlaces(np.array(["a", "b", "c"]), x_mm, y_mm, 0.1)
    drawing = slide_picture(
        places, thumbnail=thumbnail, pixel_mm=pixel_um / 1000 / scale
    )
    (axes,) = drawing.figure.axes
    left, right, bottom, top = axes.images[0].get_extent()
    offsets = axes.collections[0].get_offsets()
    columns = (offsets[:, 0] - left) / (right - left) * thumbnail.shape[1]
    rows = (offsets[:, 1] - top) / (bottom - top) * thumbnail.shape[0]
    np.testing.assert_allclose(np.column_stack([columns, rows]), spots_px * scale)
    low, high = axes.get_ylim()
    assert low > high  # downwards, as the picture
    assert axes.get_aspect() == 1


def test_the_scale_bar_is_as_long_as_it_says():
    drawing = slide_picture(few_places())
    (axes,) = drawing.figure.axes
    (bar,) = axes.lines
    (text,) = axes.texts
    ends = bar.get_xdata()
    assert text.get_text() == f"{ends[1] - ends[0]:g} mm"


def test_spots_lie_where_their_names_say_in_millimetres(written):
    places = pd.read_csv(written / "figures" / "P01_report_slide.tsv", sep="\t")
    array = places["spot"].str.extract(r"_(?P<row>\d+)x(?P<column>\d+)$").astype(float)
    corner = 1000 * PIXEL_UM / 1000
    # Six figures are written.
    np.testing.assert_allclose(
        places["x_mm"], corner + 0.2 * array["column"], rtol=1e-5
    )
    np.testing.assert_allclose(places["y_mm"], corner + 0.2 * array["row"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"section": "../P01"}, "section names the page"),
        ({"section": "a/b"}, "section names the page"),
        ({"section": ""}, "section names the page"),
        ({"section": "P07"}, "no spots of the section P07"),
        ({"n_shown": 0}, "n_shown must be at least 1"),
        ({"thumbnail": np.zeros((9, 9), "u1")}, "thumbnail must be uint8 of shape"),
        (
            {"thumbnail": np.zeros((9, 9, 3), "u1"), "thumbnail_scale": 0.0},
            "thumbnail_scale must be above 0",
        ),
        (
            {"thumbnail": np.zeros((99, 99, 3), "u1")},
            "36 of 36 spots lie outside of the thumbnail",
        ),
    ],
)
def test_what_cannot_be_shown_is_an_error(tmp_path, change, message):
    given = {"section": "P01", "card": CARD, **change}
    name = given.pop("section")
    with pytest.raises(UsageError, match=message):
        write_expression_page(tmp_path, name, section(), **given)
    assert not list(tmp_path.iterdir())


def test_predictions_without_unit_model_or_size_are_an_error(tmp_path):
    def refused(adata, message, **given):
        with pytest.raises(UsageError, match=message):
            write_expression_page(tmp_path, "P01", adata, card=CARD, **given)

    refused(section(encoder=None), "missing: encoder")
    refused(section(log_base="3"), "log_base must be one of e, 2, 10")
    bare = section()
    del bare.uns["neuromm"]["express"]
    refused(bare, "are these predictions of neuromm express")
    bare = section()
    del bare.layers["predicted"]
    refused(bare, 'need layers\\["predicted"\\]')
    bare = section()
    del bare.uns["spatial"]["P01"]["scalefactors"]["microns_per_pixel"]
    refused(bare, "size of a pixel is not known")
    bare = section()
    del bare.uns["spatial"]["P01"]["scalefactors"]["spot_diameter_fullres"]
    refused(bare, "size of a spot is not known")


def test_scores_of_another_model_or_other_genes_are_an_error(tmp_path):
    adata = section()
    scores = scores_of(adata)

    def refused(adata, scores, message):
        with pytest.raises(UsageError, match=message):
            write_expression_page(
                tmp_path, "P01", adata, scores=scores, card=CARD, n_shown=1
            )

    refused(section(model="TRIPLEX"), scores, "the model of the predictions, TRIPLEX")
    fewer = scores_of(adata, genes=scores.genes.iloc[1:])
    refused(adata, fewer, "1 lack a score, 0 are not predicted, such as <b>")
    refused(section(measured=False), scores, 'scores need layers\\["observed"\\]')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "measures of one model at least"),
        ({"models": {"GeneDML": {"r2": 1.0}}}, "measures are pcc, .* got r2"),
        ({"intervals": {"other": {"pcc": (0, 1)}}}, "intervals of models without"),
        ({"highly_chosen_on": "luck"}, "highly_chosen_on must be one of"),
        ({"genes": pd.DataFrame({"gene": ["a"]})}, "lacks pcc"),
        (
            {"genes": pd.DataFrame({"gene": ["a", "a"], "pcc": [0.1, 0.2]})},
            "genes come twice, such as a",
        ),
        (
            {"genes": pd.DataFrame({"gene": ["a"], "pcc": [1.5]})},
            "correlations of pcc lie outside",
        ),
    ],
)
def test_impossible_scores_are_an_error(change, message):
    with pytest.raises(UsageError, match=message):
        scores_of(section(), **change)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
