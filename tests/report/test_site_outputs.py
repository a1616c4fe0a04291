"""Files and pages of a map of sites: what was decided is what can be read again."""

import html
import json
import re
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from neuromm.core import SiteMap, UsageError
from neuromm.encoding.site_decision import decided
from neuromm.report import methods_text, write_sites, write_subject_report
from neuromm.report.site_summary import region_counts, sites_without
from neuromm.report.units import read_units

RIVALS = ("vision", "language", "twin", "concatenation", "banded")


def site_map(coords, n_sites, *, multimodal="joint", n_bins=1, twin=0):
    """The first ``n_sites`` targets are sites; a twin equals the first ``twin``."""
    n_targets = len(coords)
    rng = np.random.default_rng(0)
    found = np.arange(n_targets) < n_sites
    score = {name: 0.05 + 0.01 * rng.random(n_targets) for name in RIVALS}
    score[multimodal] = np.where(found, 0.4, 0.02)
    score["twin"][:twin] = 0.4
    score["linear"] = np.maximum(score["concatenation"], score["banded"])
    p = np.where(found, 1e-5, 0.6) * np.ones((len(RIVALS) + 1, 1))
    p[RIVALS.index("twin"), :twin] = 0.5
    rivals = np.stack([score[name] for name in RIVALS])
    missing = np.arange(n_targets) == n_targets - 1
    gain = np.where(missing, np.nan, score[multimodal] - rivals.max(axis=0))
    models = ["vision", "language", multimodal, "linear", *RIVALS[3:], "twin"]
    competitor = np.array(RIVALS, dtype=object)[rivals.argmax(axis=0)]
    evidence = xr.Dataset(
        {
            "score": (
                ("model", "site"),
                np.where(missing, np.nan, np.stack([score[name] for name in models])),
            ),
            "p_comparison": (("comparison", "site"), np.where(missing, np.nan, p)),
            "gain": ("site", gain),
            "ci_low": ("site", gain - 0.05),
            "ci_high": ("site", gain + 0.05),
            "competitor": ("site", np.where(missing, "", competitor)),
        },
        coords={
            "model": models,
            "comparison": [*RIVALS, "chance"],
            "site": coords["target"].to_numpy(),
            **{n: ("site", coords[n].to_numpy()) for n in coords if n != "target"},
        },
    )
    attrs = {
        "multimodal": multimodal, "unimodal": ["vision", "language"],
        "controls": ["twin"], "cv": "leave one run out, 4 folds", "block": 12,
        "n_resamples": 500, "n_events": 800, "n_bins": n_bins, "q": 0.05,
        "correction": "bh", "over_time": "mean", "confidence": 0.95, "seed": 3,
        "alphas": [1.0, 10.0],
    }  # fmt: skip
    return SiteMap(evidence=decided(evidence, 0.05, "bh"), attrs=attrs)


ENTITIES = {"subject": "01", "task": "film"}


def table_of(folder):
    (path,) = folder.rglob("*_desc-multimodalsites_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a", dtype={"is_site": str})


@pytest.fixture
def volume(output, builders):
    builders.write_volume_unit(output, spacing_mm=10)
    space = builders.Volume(builders.mni_mask(10), "MNI152NLin2009cAsym")
    entities = ENTITIES | {"space": "MNI152NLin2009cAsym"}
    sites = site_map(space.coords(), 30, twin=4)
    regions = ["" if i % 5 == 0 else f"area {i % 3}" for i in range(space.n_targets)]
    paths = write_sites(
        output, entities, "func", sites, space=space, regions=regions,
        feature_spaces={"joint": {"kind": "stand-in"}, "vision": {"kind": "trained"}},
    )  # fmt: skip
    return SimpleNamespace(output=output, sites=sites, paths=paths, space=space)


def test_every_file_is_named_and_has_its_sidecar(volume):
    names = {path.name.partition("MNI152NLin2009cAsym_")[2] for path in volume.paths}
    maps = [
        f"contrast-jointMinus{name}_stat-deltar_statmap"
        for name in ("Strongest", "Vision", "Language", "Linear", "Twin")
    ]
    maps += ["contrast-jointMinusStrongest_stat-q_statmap"]
    maps += [f"desc-multimodalsites_{name}" for name in ("mask", "dseg")]
    tables = [f"desc-multimodalsites_{name}" for name in ("scores", "regions")]
    assert names == {
        *(f"{one}.nii.gz" for one in maps),
        *(f"{one}.json" for one in [*maps, *tables]),
        *(f"{one}.tsv" for one in [*tables, "desc-multimodalsites_dseg"]),
    }


def test_the_same_map_gives_the_same_bytes(volume):
    before = {path: path.read_bytes() for path in volume.paths}
    write_sites(
        volume.output, ENTITIES | {"space": "MNI152NLin2009cAsym"}, "func",
        volume.sites, space=volume.space,
        feature_spaces={"joint": {"kind": "stand-in"}},
        regions=[
            "" if i % 5 == 0 else f"area {i % 3}" for i in range(volume.space.n_targets)
        ],
    )  # fmt: skip
    assert {path: path.read_bytes() for path in volume.paths} == before


def test_a_target_that_cannot_be_tested_is_missing_and_no_site(volume):
    last = table_of(volume.output).iloc[-1]
    assert last[["gain", "q", "p", "score_joint", "competitor"]].isna().all()
    assert last["is_site"] == "false"
    (path,) = volume.output.rglob("*_desc-multimodalsites_dseg.nii.gz")
    image = nibabel.load(path)
    assert np.asarray(image.dataobj).max() == 7  # site, joint, and five rivals
    index = np.argwhere(np.asarray(volume.space.mask_img.dataobj) > 0)[-1]
    assert image.dataobj[tuple(index)] == 0


def test_the_page_names_claim_counts_controls_and_stand_ins(volume):
    page = write_subject_report(volume.output, "01").read_text()
    text = html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))
    n_tested = volume.space.n_targets - 1
    assert f"26 of {n_tested:,} tested targets" in text
    assert "1 could not be tested" in text
    assert "Without controls 30 would be" in text
    assert "The control 'twin' does as well as 'joint' at 4 of 30 targets" in text
    assert "joint comes from a stand-in backbone" in text
    assert "0.05 (Benjamini and Hochberg, 1995)" in text
    assert "blocks of 12 samples" in text
    assert "area 1" in text


def test_the_methods_tell_how_sites_were_found(volume):
    (unit,) = read_units(volume.output, "01")
    text = methods_text(unit.design)
    assert "influence of blocks of 12 samples" in text
    assert "as controls, those of twin" in text
    assert "Subramaniam V" in text
    assert "time bins" not in text


def test_without_sites_the_page_has_no_section_of_them(output, builders):
    builders.write_native_unit(output)
    assert (
        "multimodal integration" not in write_subject_report(output, "01").read_text()
    )


def test_surfaces_are_labelled_and_drawn(output, builders):
    builders.write_surface_unit(output)
    space = builders.Surface()
    coords = space.coords()
    coords["target"] = [
        f"{h}-{i % space.n_vertices}" for i, h in enumerate(coords["hemi"])
    ]
    entities = ENTITIES | {"space": "fsaverage5"}
    paths = write_sites(
        output, entities, "func", site_map(coords, 400, twin=0), space=space
    )
    (left,) = [p for p in paths if "hemi-L" in p.name and "_mask.label" in p.name]
    (right,) = [p for p in paths if "hemi-R" in p.name and "_dseg.label" in p.name]
    assert nibabel.load(left).darrays[0].data.sum() == 400
    names = nibabel.load(right).labeltable.get_labels_as_dict()
    assert names[0] == "not scored"
    assert set(names.values()) >= {"site of joint", "joint, not shown", "twin"}
    page = write_subject_report(output, "01").read_text()
    assert "Where the sites lie" in page


def test_contacts_have_a_row_each_and_no_map(output, builders):
    builders.write_ieeg_unit(output)
    space = builders.Points(builders.contacts(0, builders.TIMES), "MNI152NLin2009cAsym")
    coords = builders.contacts(0)
    coords["channel"] = coords["target"]
    entities = {"subject": "01", "task": "faces", "space": "MNI152NLin2009cAsym"}
    sites = site_map(coords, 5, n_bins=len(builders.TIMES))
    paths = write_sites(output, entities, "ieeg", sites, space=space)
    assert sorted(path.suffix for path in paths) == [".json", ".tsv"]
    table = table_of(output)
    assert len(table) == 24
    assert "channel" not in table
    sidecar = json.loads(next(p for p in paths if p.suffix == ".json").read_text())
    assert "averaged over time bins" in sidecar["score_joint"]["Description"]
    assert sidecar["CoordinateFrame"] == "MNI152NLin2009cAsym"
    page = write_subject_report(output, "01").read_text()
    assert "5 of 23 tested contacts" in page


def test_spaces_whose_differences_would_share_a_name_are_refused(output, builders):
    space = builders.Volume(builders.native_mask(), None)
    sites = site_map(space.coords(), 3)
    models = [
        "strongest" if name == "vision" else name
        for name in sites.evidence["model"].to_numpy()
    ]
    clash = SiteMap(
        evidence=sites.evidence.assign_coords(model=models), attrs=sites.attrs
    )
    with pytest.raises(UsageError, match="contrast-jointMinusStrongest"):
        write_sites(output, ENTITIES, "func", clash, space=space)
    with pytest.raises(UsageError, match="one label per site"):
        write_sites(output, ENTITIES, "func", sites, space=space, regions=["a"])


def test_counts_leave_out_what_has_no_region_or_no_test():
    table = pd.DataFrame(
        {
            "region": ["a", "a", "b", "n/a", np.nan, "a"],
            "q": [0.01, 0.5, 0.01, 0.01, 0.01, np.nan],
            "gain": [0.2, 0.0, 0.1, 0.1, 0.1, np.nan],
            "is_site": [True, False, True, True, True, False],
            "winner": ["joint", "vision", "joint", "joint", "joint", "n/a"],
        }
    )
    counts = region_counts(table).set_index("region")
    columns = ["n_targets", "n_sites", "share", "mean_gain"]
    assert counts.loc["a", columns].tolist() == [2, 1, 0.5, 0.1]
    assert counts.loc["b", columns].tolist() == [1, 1, 1.0, 0.1]
    assert counts[["n_best_joint", "n_best_vision"]].to_numpy().tolist() == [
        [1, 0],
        [1, 1],
    ]
    # Wilson's interval of one of two, by hand: (1 + z^2 / 2 -+ z sqrt(1/2 + z^2/4))
    # / (2 + z^2).
    z = 1.959964
    half = z * np.sqrt(0.5 + z**2 / 4) / (2 + z**2)
    np.testing.assert_allclose(
        counts.loc["a", ["share_low", "share_high"]].tolist(),
        [0.5 - half, 0.5 + half],
        rtol=1e-6,
    )
    assert list(counts.index) == ["b", "a"]


def test_sites_without_a_control_are_decided_over_all_targets():
    table = pd.DataFrame(
        {
            "p_vision": [0.001, 0.02, 0.9, np.nan],
            "p_chance": [0.001, 0.03, 0.9, np.nan],
            "p_twin": [0.9, 0.9, 0.9, np.nan],
        }
    )
    # Benjamini-Hochberg of 0.001, 0.03, 0.9: 0.003, 0.045, 0.9.
    kept = sites_without(table, ["twin"], level=0.05, correction="bh")
    assert list(kept) == [True, True, False, False]
    assert not sites_without(table, [], level=0.05, correction="bh").any()
    stricter = sites_without(table, ["twin"], level=0.04, correction="bh")
    assert list(stricter) == [True, False, False, False]
