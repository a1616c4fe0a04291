"""Depth and strip contacts of one epilepsy patient (Zurich HFO data, 5 s)."""

import pandas as pd
import pytest

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def encoded(data_folder, tmp_path_factory):
    """Ripples against fast ripples in high gamma, along the whole command."""
    folder = tmp_path_factory.mktemp("zurich")
    root = data_folder / "ieeg" / "zurich_hfo_bids"
    events = pd.read_csv(next(root.rglob("sub-01/**/*_events.tsv")), sep="\t")
    kinds = sorted(events["trial_type"].unique())
    features = pd.DataFrame(
        {
            "trial_type": kinds,
            "fast": [float(kind.startswith("fr")) for kind in kinds],
            "ripple": [float("ripple" in kind) for kind in kinds],
        }
    )
    features.to_csv(folder / "kind.tsv", sep="\t", index=False)

    from neuromm_pipelines.cli import main

    code = main(
        [
            "encode", str(root), str(folder / "out"), "participant",
            "--features", f"kind={folder / 'kind.tsv'}", "--skip-bids-validation",
            "--reference", "bipolar", "--high-gamma", "80", "250",
            "--tmin", "-0.05", "--tmax", "0.1", "--window-ms", "25", "--step-ms", "25",
            "--n-permutations", "100",
        ]
    )  # fmt: skip
    assert code == 0
    (path,) = (folder / "out").rglob("*_desc-encoding_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a"), folder / "out"


def test_bipolar_contacts_join_neighbours_of_one_shaft_alone(encoded):
    scores, _ = encoded
    names = scores["target"].str.partition("@")[0].unique()
    shafts = pd.Series(names).str.extract(
        r"^(?P<a>\D+)(?P<n>\d+)-(?P<b>\D+)(?P<m>\d+)$"
    )
    assert shafts.notna().all(axis=None)
    assert (shafts["a"] == shafts["b"]).all()
    assert (shafts["m"].astype(int) - shafts["n"].astype(int) == 1).all()


def test_contacts_without_positions_are_scored_and_not_placed(encoded):
    scores, output = encoded
    assert scores["r"].notna().all()
    assert scores[["x", "y", "z"]].isna().all(axis=None)
    report = (output / "sub-01.html").read_text()
    assert "electrodes.tsv" in report


def test_scores_of_five_seconds_are_no_discovery(encoded):
    scores, _ = encoded
    # Sixty events that overlap in time: a test that finds much here would be wrong.
    assert (scores["q"] < 0.05).mean() < 0.05
