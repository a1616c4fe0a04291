"""Sites at the real contacts of three patients; the responses are SIMULATED.

The podcast data set holds contacts in MNI space and timed words, and no signals. Names,
positions and words are real. Features are random numbers, and what each contact follows
is planted: nothing here is a result about the brain.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from neuromm_pipelines.cli import main

pytestmark = [pytest.mark.real, pytest.mark.slow]

SFREQ = 32.0
N_WORDS = 500
SUBJECTS = ("01", "02", "04")
N_FEATURES = 3
# Radius in mm about a contact of each kind, and how strongly contacts follow it.
KINDS = {"interactive": 16.0, "additive": 14.0, "vision": 14.0, "language": 14.0}
STRENGTH = 1.2
STAND_IN = {"kind": "stand-in", "model": "random numbers, SIMULATED responses"}


@pytest.fixture(scope="module")
def mapped(data_folder, tmp_path_factory):
    """Output of participant and group level, and what was planted."""
    folder = tmp_path_factory.mktemp("podcast_sites")
    source = data_folder / "ieeg" / "podcast_ecog_electrodes_and_transcript"
    words = _words(source)
    rng = np.random.default_rng(5)
    spaces = _features(folder, words, rng)
    root = folder / "dataset"
    truth = pd.concat(
        [_write_subject(root, source, s, words, spaces, rng) for s in SUBJECTS]
    )
    _write_json(
        root / "dataset_description.json",
        {"Name": "podcast contacts, SIMULATED responses", "BIDSVersion": "1.11.1"},
    )
    features = [f"{name}={folder / name}.tsv" for name in (*spaces, "permuted")]
    code = main(
        [
            "encode", str(root), str(folder / "out"), "participant",
            "--features", *features, "--sites", "--controls", "permuted",
            "--no-notch", "--tmin", "0", "--tmax", "0.5", "--window-ms", "125",
            "--step-ms", "125", "--skip-bids-validation", "--n-permutations", "0",
            "--alphas", "1", "10", "100", "1000", "--omp-nthreads", "1",
            "--n-resamples", "200",
        ]
    )  # fmt: skip
    assert code == 0
    assert main(["encode", str(root), str(folder / "out"), "group"]) == 0
    return folder / "out", truth.set_index(["subject", "target"])


def _words(source):
    """Onsets of words that are 0.6 s apart, so that responses do not overlap."""
    path = source / "stimuli" / "en_core_web_lg" / "transcript.tsv"
    starts = pd.read_csv(path, sep="\t")["start"].dropna().drop_duplicates()
    kept = [-1.0]
    for start in sorted(starts):
        if start - kept[-1] >= 0.6:
            kept.append(float(start))
    return np.array(kept[1 : N_WORDS + 1])


def _features(folder, onsets, rng):
    """Random vision and language; the joint network has their products as well."""
    vision, language = rng.standard_normal((2, len(onsets), N_FEATURES))
    products = (vision[:, :, None] * language[:, None, :]).reshape(len(onsets), -1)
    joint = np.hstack([vision, language, products])
    spaces = {"vision": vision, "language": language, "joint": joint}
    permuted = joint[rng.permutation(len(joint))]
    for name, values in (*spaces.items(), ("permuted", permuted)):
        table = pd.DataFrame(values).add_prefix("f")
        table.insert(0, "onset", onsets)
        table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
        _write_json(folder / f"{name}.json", STAND_IN)
    return spaces


def _write_subject(root, source, subject, onsets, spaces, rng):
    """Write the recording of one patient; return what each contact follows."""
    import pybv

    ieeg = root / f"sub-{subject}" / "ieeg"
    ieeg.mkdir(parents=True)
    electrodes = next(source.glob(f"sub-{subject}/ieeg/*MNI*_electrodes.tsv"))
    shutil.copyfile(electrodes, ieeg / electrodes.name)
    contacts = pd.read_csv(electrodes, sep="\t")
    _write_json(
        ieeg / electrodes.name.replace("electrodes.tsv", "coordsystem.json"),
        {
            "iEEGCoordinateSystem": "MNI152NLin2009aSym",
            "iEEGCoordinateUnits": "mm",
        },
    )
    kind = _kinds(contacts[["x", "y", "z"]].to_numpy(dtype=float))
    signal = rng.standard_normal((len(contacts), int((onsets[-1] + 3) * SFREQ)))
    products = spaces["joint"][:, 2 * N_FEATURES :]
    driven = {
        "interactive": products,
        "additive": np.hstack([spaces["vision"], spaces["language"]]),
        "vision": spaces["vision"],
        "language": spaces["language"],
    }
    for name, values in driven.items():
        for number in np.flatnonzero(kind == name):
            course = values @ rng.standard_normal(values.shape[1])
            for onset, size in zip(onsets, course / course.std(), strict=True):
                first = int((onset + 0.1) * SFREQ)
                signal[number, first : first + int(0.3 * SFREQ)] += STRENGTH * size
    stem = f"sub-{subject}_task-podcast"
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
    events = pd.DataFrame({"onset": onsets, "duration": 0.0})
    events.to_csv(ieeg / f"{stem}_events.tsv", sep="\t", index=False)
    return pd.DataFrame(
        {"subject": subject, "target": contacts["name"].astype(str), "kind": kind}
    )


def _kinds(places):
    """Kind of each contact: those about the first, third, … quarter of the grid."""
    kind = np.full(len(places), "none", dtype=object)
    known = np.isfinite(places).all(axis=1)
    for number, (name, radius) in enumerate(KINDS.items()):
        centre = places[known][(2 * number + 1) * known.sum() // (2 * len(KINDS))]
        near = known & (np.linalg.norm(places - centre, axis=1) < radius)
        kind[near & (kind == "none")] = name
    return kind


def _write_json(path, content):
    path.write_text(json.dumps(content))


def _sites(output):
    tables = []
    for path in sorted(output.rglob("sub-*_desc-multimodalsites_scores.tsv")):
        one = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"target": str})
        tables.append(one.assign(subject=path.name[4:6]))
    table = pd.concat(tables)
    table["is_site"] = table["is_site"].astype(str).str.lower() == "true"
    return table.set_index(["subject", "target"])


def test_planted_sites_are_found_and_false_ones_stay_below_q(mapped):
    output, truth = mapped
    table = _sites(output)
    kind = truth["kind"].reindex(table.index)
    found = table["is_site"]
    planted = kind == "interactive"
    assert planted.groupby("subject").sum().min() >= 3
    assert set(kind) == {*KINDS, "none"}
    assert found[planted].mean() >= 0.8
    assert (found & ~planted).sum() <= 0.05 * found.sum()


def test_the_region_table_counts_contacts_and_patients(mapped):
    output, _ = mapped
    table = _sites(output)
    known = table[table["region"].notna() & table["gain"].notna()].reset_index()
    name = "task-podcast_desc-multimodalsites_regions.tsv"
    regions = pd.read_csv(output / "group" / "ieeg" / name, sep="\t", na_values="n/a")
    assert regions["n_targets"].sum() == len(known)
    assert regions["n_sites"].sum() == known["is_site"].sum()
    for row in regions.to_dict("records"):
        rows = known[known["region"] == row["region"]]
        assert row["n_subjects"] == rows["subject"].nunique()
    several = regions[regions["n_subjects"] > 1]
    assert len(several)
    assert several[["share_low", "share_high"]].notna().all(axis=None)


def test_the_surface_figure_shows_contacts_near_cortex_alone(mapped):
    output, _ = mapped
    stem = output / "group" / "ieeg" / "task-podcast_desc-multimodalsites_winnersurface"
    drawn = pd.read_csv(
        f"{stem}.tsv", sep="\t", na_values="n/a", dtype={"subject": str}
    )
    assert set(drawn["subject"]) == set(SUBJECTS)
    assert drawn["distance_mm"].max() <= 10
    # Left contacts are drawn on the left hemisphere, away from the midline.
    lateral = drawn[drawn["x"].abs() > 10]
    np.testing.assert_array_equal(lateral["hemi"], np.where(lateral["x"] < 0, "L", "R"))
    for extension in ("png", "svg"):
        assert stem.with_name(f"{stem.name}.{extension}").stat().st_size > 10_000


def test_planted_responses_peak_where_they_were_put_in_time(mapped):
    output, truth = mapped
    path = next(output.rglob("sub-01_*_desc-multimodalsites_courses.tsv"))
    courses = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"target": str})
    kind = courses["target"].map(truth.loc["01"]["kind"])
    gain = courses[kind == "interactive"].groupby("time")["gain"].mean()
    assert 0.1 < gain.idxmax() < 0.4


def test_the_report_and_its_figures_say_that_they_show_no_brain(mapped):
    output, _ = mapped
    page = (output / "group.html").read_text()
    assert "Sites of multimodal integration: intracranial EEG, task podcast" in page
    assert "Features are stand-ins, not those of a network" in page
    assert "random numbers, SIMULATED responses" in (output / "sub-01.html").read_text()
    figures = list((output / "group" / "ieeg").glob("*.svg"))
    assert len(figures) == 10
    for figure in figures:
        assert "stand-in features: no result about the brain" in figure.read_text()
