"""The summary of sections: means are over patients, and a leak is shown as one."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuromm.core import UsageError
from neuromm.metrics import bootstrap_interval
from neuromm.report import write_expression_summary

MEASURES = ("pcc", "pcc_h", "mse", "mae", "gsc", "ssc")
TOLD = {
    "model": "GeneDML",
    "encoder": "colorstats",
    "is_stand_in": True,
    "log_base": "e",
    "library": "all",
    "target_sum": 1e6,
    "notice": "",
    "versions": {"neuromm": "0.1.dev7"},
    "n_highly": 10,
    "warnings": ["section <D2> was skipped"],
}
# Patient A has three sections, B one and C two: a mean over sections would be A's.
SECTIONS = {"A1": "A", "A2": "A", "A3": "A", "B1": "B", "C1": "C", "C2": "C"}


def scored(fold: str = "without {}", *, lift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = []
    for section, patient in SECTIONS.items():
        for model, extra in (("ridge", 0.0), ("GeneDML", 0.05)):
            values = dict(zip(MEASURES, rng.uniform(0.1, 0.5, 6), strict=True))
            values["pcc"] += extra + lift
            rows.append(
                {
                    "section": section,
                    "patient": patient,
                    "fold": fold.format(patient),
                    "model": model,
                    **values,
                    "n_spots": 1346,
                    "n_constant": 2,
                }
            )
    return pd.DataFrame(rows)


def genes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gene": ["<b>", "ACTB", "none"],
            "pcc": [0.25, 0.75, np.nan],
            "n_sections": [5, 6, 0],
            "n_constant": [1, 0, 6],
        }
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A summary with random folds and one page; not to change."""
    root = tmp_path_factory.mktemp("express")
    (root / "A1_report.html").write_text("its page")
    rows = pd.concat([scored(), scored("random 1", lift=0.3)], ignore_index=True)
    rows.loc[0, "gsc"] = np.nan
    write_expression_summary(root, rows, genes=genes(), told=TOLD)
    return root


@pytest.fixture(scope="module")
def page(written) -> str:
    return (written / "report.html").read_text()


def means_of(root: Path, *, leak: bool = False) -> pd.DataFrame:
    table = pd.read_csv(root / "report_means.tsv", sep="\t", na_values="n/a")
    own = table["left_out"] == ("random spots" if leak else "sections or regions")
    return table[own].set_index(["model", "measure"])


def cells(page: str, first: str) -> list[list[str]]:
    """Cells of each table row that begins with a text, tags left out."""
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]
    plain = [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in rows]
    return [row[1:] for row in plain if row and row[0] == first]


def test_means_are_over_patients_and_intervals_draw_patients(written, page):
    own = scored().query("model == 'GeneDML'")
    mean = own.groupby("patient")["pcc"].mean().mean()
    assert abs(mean - own["pcc"].mean()) > 0.001  # or the test tells nothing
    low, high = bootstrap_interval(own["pcc"], groups=own["patient"])
    stored = means_of(written).loc[("GeneDML", "pcc")]
    # Six figures are written.
    np.testing.assert_allclose(
        stored[["mean", "low", "high"]].astype(float), [mean, low, high], rtol=1e-5
    )
    assert (stored["n_patients"], stored["n_rows"]) == (3, 6)
    shown = f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    assert cells(page, "PCC(A)")[0][0] == shown


def test_differences_to_the_ridge_probe_are_of_the_same_spots(written, page):
    rows = scored().set_index(["section", "patient"])
    apart = (
        rows.loc[rows["model"] == "GeneDML", "mse"]
        - rows.loc[rows["model"] == "ridge", "mse"]
    )
    mean = apart.groupby("patient").mean().mean()
    stored = means_of(written).loc[("GeneDML - ridge", "mse")]
    assert stored["mean"] == pytest.approx(mean, rel=1e-5)
    unit = "ln(1 + CPM)"
    shown = cells(page, f"MSE ({unit}, squared)")[0][2]
    assert shown.startswith(f"{mean:+.3f} [")
    assert "GeneDML minus ridge probe" in page


def test_a_section_without_a_value_is_in_no_mean_and_shown_as_n_a(written, page):
    stored = means_of(written).loc[("ridge", "gsc")]
    known = scored().query("model == 'ridge' and section != 'A1'")
    expected = known.groupby("patient")["gsc"].mean().mean()
    assert stored["mean"] == pytest.approx(expected, rel=1e-5)
    assert stored["n_rows"] == 5
    structure = cells(page, "A1")[2]
    assert structure[5] == "n/a"
    assert not re.search(r"\bnan\b", page)


def test_each_section_has_its_patient_fold_and_both_models(written, page):
    rows = scored().set_index(["section", "model"])
    for section, patient in SECTIONS.items():
        shown = cells(page, section)[0]
        ours, ridge = rows.loc[(section, "GeneDML")], rows.loc[(section, "ridge")]
        assert shown == [
            patient,
            f"without {patient}",
            "1,346",
            "2",
            *[f"{one[name]:.3f}" for name in ("pcc", "pcc_h") for one in (ours, ridge)],
        ]
    stored = pd.read_csv(written / "report.tsv", sep="\t", na_values="n/a")
    assert len(stored) == 24
    assert (stored["left_out"] == "random spots").sum() == 12


def test_random_folds_are_a_leak_and_in_no_mean_of_the_others(written, page):
    alone = scored()
    ours = alone[alone["model"] == "GeneDML"]
    mean = ours.groupby("patient")["pcc"].mean().mean()
    assert means_of(written).loc[("GeneDML", "pcc"), "mean"] == pytest.approx(
        mean, rel=1e-5
    )
    leaked = means_of(written, leak=True).loc[("GeneDML", "pcc"), "mean"]
    assert leaked == pytest.approx(mean + 0.3, rel=1e-5)
    assert "Random folds: a leak" in page
    assert f"PCC(A) of GeneDML is {mean + 0.3:.3f} here, and {mean:.3f} where" in page
    assert page.index("Random folds: a leak. In these") < page.index('id="scores"')
    assert page.index('id="scores"') < page.index('id="random"')
    figure = pd.read_csv(written / "figures" / "report_sections.tsv", sep="\t")
    assert not figure["fold"].str.contains("random").any()


def test_random_folds_alone_are_marked_in_the_figure_too(tmp_path):
    path = write_expression_summary(tmp_path, scored("Random"), told=TOLD)
    assert 'id="scores"' not in path.read_text()
    assert (
        "random folds: a leak"
        in (tmp_path / "figures" / "report_sections.svg").read_text()
    )


def test_folds_of_patients_are_no_leak(tmp_path):
    path = write_expression_summary(tmp_path, scored(), told=TOLD)
    assert "leak" not in path.read_text()


def test_sections_that_were_trained_on_are_no_test(tmp_path):
    rows = pd.concat([scored("new patient"), scored("trained on", lift=0.2)])
    page = write_expression_summary(tmp_path, rows, told=TOLD).read_text()
    ours = scored().query("model == 'GeneDML'")
    mean = ours.groupby("patient")["pcc"].mean().mean()
    assert f"PCC(A) of GeneDML is {mean + 0.2:.3f} here, and {mean:.3f} where" in page
    assert means_of(tmp_path).loc[("GeneDML", "pcc"), "mean"] == pytest.approx(
        mean, rel=1e-5
    )
    assert "Trained on: no test" in page


def test_pages_that_are_there_are_linked(page):
    assert page.count('href="A1_report.html"') == 6  # three tables, twice
    assert "A2_report.html" not in page


def test_names_of_patients_are_no_formulas(tmp_path):
    rows = scored().replace({"patient": {"B": "$x^$"}})
    write_expression_summary(tmp_path, rows, told=TOLD)
    figure = (tmp_path / "figures" / "report_sections.svg").read_text()
    assert ">$x^$</text>" in figure


def test_links_are_written_as_browsers_read_them(tmp_path):
    rows = scored().replace({"section": {"B1": "B 1 #2"}})
    (tmp_path / "B 1 #2_report.html").write_text("its page")
    page = write_expression_summary(tmp_path, rows, told=TOLD).read_text()
    assert 'href="B%201%20%232_report.html">B 1 #2</a>' in page


def test_genes_are_listed_from_the_best_and_shown_as_they_are_named(written, page):
    assert cells(page, "ACTB") == [["0.750", "6", "0"]]
    assert cells(page, "&lt;b&gt;") == [["0.250", "5", "1"]]
    assert cells(page, "none") == [["n/a", "0", "6"]]
    assert page.index(">ACTB<") < page.index(">&lt;b&gt;<")
    assert "<b>" not in page
    assert "1 gene has no correlation in any section" in page
    stored = pd.read_csv(
        written / "report_genes.tsv", sep="\t", na_values="n/a", keep_default_na=False
    )
    assert list(stored["gene"]) == ["ACTB", "<b>", "none"]


def test_a_stand_in_the_unit_and_warnings_are_said(written, page):
    assert "STAND-IN: the encoder colorstats" in page
    assert "section &lt;D2&gt; was skipped" in page
    assert "counts per 1,000,000 counts of all genes" in page
    assert "The 10 genes of PCC(H)" in page
    for path in written.glob("*.tsv"):
        stored = pd.read_csv(path, sep="\t")
        assert (stored["encoder"] == "colorstats (stand-in)").all()
    for path in (written / "figures").glob("*.svg"):
        assert "stand-in encoder colorstats" in path.read_text()


def test_one_patient_has_no_interval(tmp_path):
    rows = scored().query("patient == 'A'")
    path = write_expression_summary(tmp_path, rows, told=TOLD)
    page = path.read_text()
    mean = rows.query("model == 'GeneDML'")["pcc"].mean()
    assert cells(page, "PCC(A)")[0][0] == f"{mean:.3f}"
    assert "there is no interval over patients" in page


def test_a_model_without_a_ridge_probe_is_a_warning(tmp_path, page):
    assert "No ridge probe was scored" not in page
    rows = scored().query("model == 'GeneDML'")
    path = write_expression_summary(tmp_path, rows, told=TOLD)
    assert "No ridge probe was scored" in path.read_text()
    assert "minus" not in path.read_text()


def test_the_order_of_models_is_not_that_of_the_rows(tmp_path, page):
    third = scored().query("model == 'ridge'").assign(model="TRIPLEX")
    rows = pd.concat([scored(), third])
    path = write_expression_summary(tmp_path, rows, told=TOLD)
    heads = re.findall(r'class="number">([^<]*)</th>', path.read_text())
    assert heads[:5] == [
        "GeneDML",
        "TRIPLEX",
        "ridge probe",
        "GeneDML minus ridge probe",
        "TRIPLEX minus ridge probe",
    ]
    apart = means_of(tmp_path).loc["TRIPLEX - ridge"]
    assert (apart["mean"] == 0).all()  # the same numbers under another name


def test_the_same_rows_give_the_same_bytes_and_what_is_old_is_gone(tmp_path):
    rows = scored()
    write_expression_summary(tmp_path / "one", rows, told=TOLD)
    write_expression_summary(tmp_path / "two", rows, genes=genes(), told=TOLD)
    write_expression_summary(tmp_path / "two", rows, told=TOLD)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="gsc"), "rows lack the columns gsc"),
        (lambda rows: pd.concat([rows, rows[:1]]), "ridge twice for section A1"),
        (lambda rows: rows.assign(patient=rows.index.astype(str)), "several patients"),
        (lambda rows: rows.assign(patient=None), "rows need a value in each of"),
        (
            lambda rows: rows.query("model == 'ridge'"),
            "must hold the model of the run, GeneDML, got ridge",
        ),
    ],
)
def test_rows_that_cannot_be_summed_up_are_an_error(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        write_expression_summary(tmp_path, change(scored()), told=TOLD)
    assert not list(tmp_path.iterdir())


def test_genes_and_settings_that_are_not_complete_are_an_error(tmp_path):
    with pytest.raises(UsageError, match="genes lack the columns n_constant"):
        write_expression_summary(
            tmp_path, scored(), genes=genes().drop(columns="n_constant"), told=TOLD
        )
    with pytest.raises(UsageError, match="missing: encoder, is_stand_in"):
        write_expression_summary(tmp_path, scored(), told={"model": "m", "log_base": 2})
    with pytest.raises(UsageError, match="highly_chosen_on must be one of"):
        write_expression_summary(
            tmp_path, scored(), told={**TOLD, "highly_chosen_on": "luck"}
        )
    assert not list(tmp_path.iterdir())


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
