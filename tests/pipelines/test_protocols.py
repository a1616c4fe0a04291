"""``--protocol subramaniam2024``: fixed windows, its own verdicts, told everywhere."""

import json

import numpy as np
import pandas as pd
import pytest

from neuromm.encoding import half_fold_sites
from neuromm.simulate import make_bids_dataset
from neuromm_pipelines.cli import main

CONTACTS = 4


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """One subject with few good contacts: of vision, language and a site."""
    root = tmp_path_factory.mktemp("protocol") / "bids"
    truth = make_bids_dataset(
        root, n_subjects=1, modalities=("ieeg",), interactive=True, rng=0
    )
    kinds = truth.table.set_index("target")["kind"]
    order = truth.table.sort_values("r_max", ascending=False).set_index("target")
    kept = [order.index[order["kind"] == kind][0] for kind in ("vision", "language")]
    kept += list(order.index[order["kind"] == "interactive"][: CONTACTS - 2])
    for path in root.rglob("*_channels.tsv"):
        channels = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        channels.loc[~channels["name"].isin(kept), "status"] = "bad"
        channels.to_csv(path, sep="\t", index=False)
    return truth, kinds


def words(film, output, *options):
    truth, _ = film
    names = ("vision", "language", "joint")
    return [
        "encode", str(truth.root), str(output), "participant",
        "--features", *(f"{name}={truth.features[name]}" for name in names),
        "--n-permutations", "0", "--skip-bids-validation", "--omp-nthreads", "1",
        "--n-resamples", "100", *map(str, options),
    ]  # fmt: skip


PROTOCOL = ("--sites", "--protocol", "subramaniam2024")


@pytest.fixture(scope="module")
def mapped(film, tmp_path_factory):
    output = tmp_path_factory.mktemp("mapped") / "out"
    assert main(words(film, output, *PROTOCOL)) == 0
    return output


def site_files(output):
    (path,) = output.rglob("ieeg/*_desc-multimodalsites_scores.tsv")
    return pd.read_csv(path, sep="\t"), json.loads(
        path.with_suffix(".json").read_text()
    )


def test_windows_are_161_of_200_ms_from_2_s_before_to_2_s_after(mapped):
    _, sidecar = site_files(mapped)
    assert sidecar["Sites"]["n_bins"] == 161
    (path,) = mapped.rglob("ieeg/*_desc-encoding_scores.tsv")
    times = np.sort(pd.read_csv(path, sep="\t")["time"].unique())
    assert len(times) == 161
    # Middles of windows of whole samples at 256 Hz.
    np.testing.assert_allclose(times[[0, -1]], [-1.9, 2.1], atol=0.01)


def test_planted_contacts_are_told_apart(film, mapped):
    _, kinds = film
    table, _ = site_files(mapped)
    table = table.set_index("target")
    kind = kinds[table.index]
    assert len(table) == CONTACTS
    assert not table["is_site"][kind != "interactive"].any()
    won = table["is_site"] | table["by_default"]
    assert won[kind == "interactive"].any()


def test_table_sidecar_and_report_say_which_protocol(mapped):
    table, sidecar = site_files(mapped)
    assert sidecar["Sites"]["protocol"] == "subramaniam2024"
    assert any("liberal" in text for text in sidecar["Warnings"])
    undescribed = [name for name in table if "Description" not in sidecar[name]]
    assert not undescribed
    assert "second halves" in sidecar["score_joint"]["Description"]
    report = (mapped / "sub-01.html").read_text()
    assert "Protocol subramaniam2024" in report
    assert "without a test" in report
    assert "banded ridge" not in report.split('id="sites"')[1].split("</section>")[0]


def test_outputs_of_one_way_are_not_taken_for_those_of_the_other(film, mapped, capsys):
    same = words(film, mapped, *PROTOCOL)
    assert main(same) == 0
    assert "1 skipped" in capsys.readouterr().out
    window = ("--tmin", "-2", "--tmax", "2.2", "--window-ms", "200", "--step-ms", "25")
    assert main(words(film, mapped, "--sites", *window)) != 0
    assert "--overwrite" in capsys.readouterr().err


def test_chunks_of_contacts_give_the_same_sites(film, mapped, tmp_path):
    assert main(words(film, tmp_path / "out", *PROTOCOL, "--chunks", "2")) == 0
    whole, _ = site_files(mapped)
    cut, _ = site_files(tmp_path / "out")
    pd.testing.assert_frame_equal(cut, whole, rtol=1e-4, atol=1e-6)


def test_dry_run_counts_the_refits(film, tmp_path, capsys):
    assert main(words(film, tmp_path / "out", *PROTOCOL, "--dry-run")) == 0
    told = capsys.readouterr().out
    # vision, language, joint and concatenation; all events and 100 resamples.
    assert "404 fits" in told
    assert "subramaniam2024" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tmin", "-0.2"), "--tmin contradicts"),
        (("--alphas", "1", "10"), "--alphas contradicts"),
        (("--sites-over-time", "max"), "--sites-over-time contradicts"),
        (("--sites-correction", "by"), "--sites-correction contradicts"),
    ],
)
def test_flags_that_contradict_the_protocol_are_refused(
    film, tmp_path, capsys, options, message
):
    assert main(words(film, tmp_path / "out", *PROTOCOL, *options)) == 2
    assert message in capsys.readouterr().err


def test_flags_that_agree_with_the_protocol_are_taken(film, tmp_path):
    agreeing = ("--tmin", "-2", "--tmax", "2.2", "--folds", "5", "--dry-run")
    assert main(words(film, tmp_path / "out", *PROTOCOL, *agreeing)) == 0


def test_a_protocol_without_sites_is_refused(film, tmp_path, capsys):
    arguments = words(film, tmp_path / "out", "--protocol", "subramaniam2024")
    assert main(arguments) == 2
    assert "give --sites" in capsys.readouterr().err


def test_fmri_is_refused(tiny_bold, tmp_path, capsys):
    features = [f"{name}={tiny_bold.features}" for name in ("a", "b", "joint")]
    arguments = [
        "encode", str(tiny_bold.root), str(tmp_path / "out"), "participant",
        "--features", *features, "--skip-bids-validation", *PROTOCOL,
    ]  # fmt: skip
    assert main(arguments) == 2
    assert "is fMRI" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_library_has_the_defaults_of_the_command():
    from inspect import signature

    from neuromm.encoding.half_fold_comparisons import PROTOCOL as NAME
    from neuromm.encoding.half_fold_protocol import PROTOCOL_ALPHAS
    from neuromm_pipelines import site_protocol

    assert NAME == site_protocol.PROTOCOL
    np.testing.assert_allclose(site_protocol._PROTOCOL_ALPHAS, PROTOCOL_ALPHAS)
    defaults = signature(half_fold_sites).parameters
    assert defaults["n_folds"].default == site_protocol._FIXED["folds"]
