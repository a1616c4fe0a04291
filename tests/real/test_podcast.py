"""Real electrode positions of five patients, with simulated signals on top.

The podcast data set holds 777 contacts in MNI space; its signals are not here. Contacts
over the superior temporal gyrus get a response to the length of each word, the others
noise: what is real are names, positions, types and words.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.real

SFREQ = 64.0
N_WORDS = 300


@pytest.fixture(scope="module")
def encoded(data_folder, tmp_path_factory):
    from neuromm_pipelines.cli import main

    folder = tmp_path_factory.mktemp("podcast")
    source = data_folder / "ieeg" / "podcast_ecog_electrodes_and_transcript"
    words = pd.read_csv(
        source / "stimuli" / "en_core_web_lg" / "transcript.tsv", sep="\t"
    )
    words = words.dropna(subset=["start"]).drop_duplicates("start")
    words = words.head(N_WORDS).sort_values("start")
    planted = _write_dataset(folder / "dataset", source, words)
    table = pd.DataFrame(
        {"onset": words["start"], "length": words["word"].astype(str).str.len()}
    )
    table.to_csv(folder / "word.tsv", sep="\t", index=False)
    code = main(
        [
            "encode", str(folder / "dataset"), str(folder / "out"), "participant",
            "--features", f"word={folder / 'word.tsv'}", "--no-notch",
            "--tmin", "0", "--tmax", "0.5", "--window-ms", "125", "--step-ms", "125",
            "--skip-bids-validation", "--n-permutations", "5000",
        ]
    )  # fmt: skip
    assert code == 0
    (path,) = (folder / "out").rglob("*_desc-encoding_scores.tsv")
    scores = pd.read_csv(path, sep="\t", na_values="n/a")
    scores["contact"] = scores["target"].str.partition("@")[0]
    return scores, planted


def _write_dataset(root, source, words):
    """Write subject 03, who has the most contacts; return the planted contacts."""
    import pybv

    ieeg = root / "sub-03" / "ieeg"
    ieeg.mkdir(parents=True)
    electrodes = next(source.glob("sub-03/ieeg/*MNI*_electrodes.tsv"))
    shutil.copyfile(electrodes, ieeg / electrodes.name)
    contacts = pd.read_csv(electrodes, sep="\t")
    _write_json(
        root / "dataset_description.json", {"Name": "podcast", "BIDSVersion": "1.11.1"}
    )
    _write_json(
        ieeg / electrodes.name.replace("electrodes.tsv", "coordsystem.json"),
        {
            "iEEGCoordinateSystem": "MNI152NLin2009aSym",
            "iEEGCoordinateUnits": "mm",
        },
    )
    # Heschl's gyrus and the superior temporal gyrus of the left hemisphere.
    centre = np.array([-60.0, -18.0, 4.0])
    near = np.linalg.norm(contacts[["x", "y", "z"]] - centre, axis=1) < 15
    planted = set(contacts["name"][near])
    rng = np.random.default_rng(0)
    n_times = int((words["start"].max() + 3) * SFREQ)
    signal = rng.standard_normal((len(contacts), n_times))
    length = words["word"].astype(str).str.len().to_numpy()
    response = np.zeros(n_times)
    for onset, size in zip(words["start"], length - length.mean(), strict=True):
        first = int((onset + 0.1) * SFREQ)
        response[first : first + int(0.25 * SFREQ)] += size
    signal[near] += 0.5 * response
    stem = "sub-03_task-podcast"
    pybv.write_brainvision(
        data=1e-5 * signal,
        sfreq=SFREQ,
        ch_names=list(contacts["name"]),
        fname_base=f"{stem}_ieeg",
        folder_out=ieeg,
        unit="µV",
    )
    _write_json(
        ieeg / f"{stem}_ieeg.json",
        {
            "TaskName": "podcast",
            "SamplingFrequency": SFREQ,
            "PowerLineFrequency": 60,
            "iEEGReference": "n/a",
            "SoftwareFilters": "n/a",
        },
    )
    channels = pd.DataFrame(
        {"name": contacts["name"], "type": "ECOG", "units": "µV", "status": "good"}
    )
    channels.to_csv(ieeg / f"{stem}_channels.tsv", sep="\t", index=False)
    events = pd.DataFrame({"onset": words["start"], "duration": 0.0})
    events.to_csv(ieeg / f"{stem}_events.tsv", sep="\t", index=False)
    return planted


def _write_json(path, content):
    path.write_text(json.dumps(content))


def test_every_contact_lies_where_the_table_says_in_mm(encoded, data_folder):
    scores, _ = encoded
    table = pd.read_csv(
        next(data_folder.glob("ieeg/podcast*/sub-03/ieeg/*MNI*_electrodes.tsv")),
        sep="\t",
        index_col="name",
    )
    placed = scores.drop_duplicates("contact").set_index("contact")
    assert set(placed.index) == set(table.index)
    np.testing.assert_allclose(
        placed.loc[table.index, ["x", "y", "z"]], table[["x", "y", "z"]], atol=1e-3
    )


def test_planted_contacts_are_found_and_the_others_are_not(encoded):
    scores, planted = encoded
    found = set(scores[scores["q"] < 0.05]["contact"])
    assert len(planted) >= 5
    assert planted <= found
    others = set(scores["contact"]) - planted
    assert len(found & others) / len(found) <= 0.1


def test_planted_contacts_carry_the_label_of_temporal_cortex(encoded):
    scores, planted = encoded
    rows = scores.drop_duplicates("contact").set_index("contact")
    regions = rows.loc[sorted(planted), "region"].dropna().str.lower()
    assert len(regions) >= 0.5 * len(planted)
    assert regions.str.contains("temporal").mean() >= 0.5
