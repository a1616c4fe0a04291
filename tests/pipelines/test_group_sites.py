"""Group level of ``neuromm encode`` after maps of sites of two subjects."""

import json
import shutil

import pandas as pd
import pytest

from neuromm.encoding import both_alignments
from neuromm.report import html, site_sections
from neuromm.simulate import make_bids_dataset
from neuromm_pipelines.cli import main

pytestmark = pytest.mark.slow

STEM = "task-film_desc-multimodalsites"


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Two simulated subjects with contacts, through both levels; not to be changed."""
    root = tmp_path_factory.mktemp("group_sites")
    truth = make_bids_dataset(root / "bids", n_subjects=2, interactive=True, rng=0)
    features = [
        f"{name}={truth.features[name]}" for name in ("vision", "language", "joint")
    ]
    features.append(_permuted(root, truth.features["joint"]))
    words = [
        "encode", str(truth.root), str(root / "out"), "participant",
        "--features", *features, "--datatype", "ieeg", "--sites",
        "--controls", "permuted", "--window-ms", "250", "--step-ms", "250",
        "--n-permutations", "0", "--alphas", "10", "1000", "--n-resamples", "100",
        "--skip-bids-validation", "--omp-nthreads", "1",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # Other figures take most of the time, and are tested elsewhere.
        patch.setattr(html, "unit_pictures", lambda unit: [])
        patch.setattr(html, "_all_contacts", lambda units: [])
        patch.setattr(site_sections, "site_pictures", lambda unit, sites: [])
        assert main(words) == 0
        assert main(["encode", str(truth.root), str(root / "out"), "group"]) == 0
    return root / "out"


def _permuted(root, joint):
    """The joint features in another order of stimuli."""
    table = pd.read_csv(joint, sep="\t")
    values = table.drop(columns="stim_file").sample(frac=1, random_state=0)
    values = values.reset_index(drop=True)
    values.insert(0, "stim_file", table["stim_file"])
    values.to_csv(root / "permuted.tsv", sep="\t", index=False)
    return f"permuted={root / 'permuted.tsv'}"


def _table(path):
    return pd.read_csv(path, sep="\t", na_values="n/a", dtype={"target": str})


def _subjects(output, suffix):
    paths = sorted(output.rglob(f"sub-*_desc-multimodalsites_{suffix}.tsv"))
    tables = [_table(path).assign(subject=path.name[4:6]) for path in paths]
    return pd.concat(tables, ignore_index=True)


def test_scores_of_time_bins_have_the_mean_that_the_sites_have(grouped):
    sites = _subjects(grouped, "scores").set_index(["subject", "target"])
    courses = _subjects(grouped, "courses")
    means = courses.groupby(["subject", "target"]).mean()
    assert courses["time"].nunique() > 1
    for name in ("score_joint", "score_vision", "score_linear", "score_permuted"):
        pd.testing.assert_series_equal(
            means[name].reindex(sites.index), sites[name], atol=1e-3, rtol=0
        )
    best = courses[["score_vision", "score_language", "score_linear"]].max(axis=1)
    best = best.combine(courses["score_permuted"], max)
    strongest = courses[["score_concatenation", "score_banded"]].max(axis=1)
    gain = courses["score_joint"] - best.combine(strongest, max)
    pd.testing.assert_series_equal(
        courses["gain"], gain, atol=1e-3, rtol=0, check_names=False
    )


def test_the_sidecar_of_time_bins_describes_every_column(grouped):
    (path, _) = sorted(grouped.rglob("sub-*_desc-multimodalsites_courses.json"))
    sidecar = json.loads(path.read_text())
    columns = _table(path.with_suffix(".tsv")).columns
    assert all("Description" in sidecar[name] for name in columns)
    assert sidecar["time"]["Units"] == "s"
    assert "averaged over time bins" not in sidecar["score_joint"]["Description"]


def test_regions_count_contacts_and_subjects_of_both_tables(grouped):
    sites = _subjects(grouped, "scores")
    sites = sites[sites["region"].notna() & sites["gain"].notna()]
    found = sites["is_site"].astype(str).str.lower() == "true"
    regions = _table(grouped / "group" / "ieeg" / f"{STEM}_regions.tsv")
    regions = regions.set_index("region")
    expected = sites.groupby("region").agg(
        n_targets=("target", "size"), n_subjects=("subject", "nunique")
    )
    assert set(regions.index) == set(expected.index)
    for name, column in expected.items():
        assert (regions[name] == column.reindex(regions.index)).all()
    assert regions["n_sites"].sum() == found.sum()
    times = _subjects(grouped, "courses")["time"]
    assert set(regions["time_of_largest_gain"]) <= set(times)


def test_the_mean_gain_of_subjects_is_an_effect_with_its_interval(grouped):
    sites = _subjects(grouped, "scores")
    means = sites.groupby("subject")["gain"].mean()
    effects = _table(grouped / "group" / "ieeg" / f"{STEM}_effects.tsv")
    every = effects[effects["region"] == "all"].set_index("kind")
    assert every.loc["random", "mean"] == pytest.approx(means.mean(), abs=1e-4)
    assert every.loc["random", "smallest_p"] == 0.25  # two subjects have four signs
    assert every.loc["fixed", "mean"] == pytest.approx(sites["gain"].mean(), abs=1e-4)


def test_every_figure_is_a_picture_a_vector_graphic_and_a_table(grouped):
    folder = grouped / "group" / "ieeg"
    names = {path.stem.removeprefix(f"{STEM}_") for path in folder.glob("*.png")}
    assert names == {
        "winnersurface", "gainsurface", "winnerglass", "gainglass", "regionbars",
        "gains", "scoreovertime", "scoreovertimebyregion", "controls", "ranks",
    }  # fmt: skip
    for name in names:
        assert len(_table(folder / f"{STEM}_{name}.tsv"))
        assert (folder / f"{STEM}_{name}.svg").read_text().startswith("<?xml")
    page = (grouped / "group.html").read_text()
    assert "Sites of multimodal integration: intracranial EEG, task film" in page
    assert "2 subjects: intervals over so few are rough" in page
    assert page.count("<img") >= len(names)


def test_the_scatter_sets_the_network_against_its_control(grouped):
    drawn = _table(grouped / "group" / "ieeg" / f"{STEM}_controls.tsv")
    sites = _subjects(grouped, "scores").sort_values(["subject", "target"])
    drawn = drawn.sort_values(["subject", "target"])
    assert set(drawn["model"]) == {"joint and permuted"}
    assert drawn["trained"].to_numpy() == pytest.approx(sites["score_joint"], abs=1e-5)
    assert drawn["random"].to_numpy() == pytest.approx(
        sites["score_permuted"], abs=1e-5
    )


def test_the_group_level_gives_the_same_bytes_again(grouped):
    files = [path for path in (grouped / "group").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    root = grouped.parent / "bids"
    assert main(["encode", str(root), str(grouped), "group"]) == 0
    assert {path: path.read_bytes() for path in files} == before


def test_sites_of_two_alignments_are_those_that_both_have(grouped, tmp_path, capsys):
    """Both are copies of this output, whose sites are set: four, and three of them."""
    words, scenes = tmp_path / "words", tmp_path / "scenes"
    for root, first in ((words, 0), (scenes, 1)):
        shutil.copytree(grouped, root)
        for path in sorted(root.rglob("sub-*_desc-multimodalsites_scores.tsv")):
            table = _table(path)
            chosen = table.index.isin(range(first, first + 4))
            table["is_site"] = ["true" if one else "false" for one in chosen]
            if root == scenes:
                table.loc[table.index[-1], ["gain", "q"]] = float("nan")
            table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    bids = tmp_path / "bids"
    bids.mkdir()
    ran = main(
        ["encode", str(bids), str(words), "group", "--both-alignments", str(scenes)]
    )
    assert ran == 0, capsys.readouterr().err
    (joined,) = words.rglob(f"{STEM}_bothalignments.tsv")
    found = _table(joined).set_index(["subject", "target"]).sort_index()
    tables = [
        {
            path.name[4:6]: _table(path).astype({"is_site": bool})
            for path in sorted(root.rglob("sub-*_desc-multimodalsites_scores.tsv"))
        }
        for root in (words, scenes)
    ]
    expected = both_alignments(*tables, names=("words", "scenes"))
    expected = expected.set_index(["subject", "target"]).sort_index()
    assert list(found.index) == [(int(s), t) for s, t in expected.index]
    for name in ("is_site", "is_site_words", "is_site_scenes", "tested"):
        assert list(found[name]) == list(expected[name]), name
    assert found["is_site_words"].sum() == found["is_site_scenes"].sum() == 2 * 4
    assert found["is_site"].sum() == 2 * 3
    assert (found["tested"] == "words").sum() == 2
    report = (words / "group.html").read_text()
    assert "Sites in both alignments" in report
    assert "2 were tested in one alignment alone" in report
