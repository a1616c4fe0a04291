import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from neuromm.core import UsageError
from neuromm.report.derivatives import prepare_output, write_unit

MNI = "sub-01_task-film_space-MNI152NLin2009cAsym"


def scores(root: Path, datatype: str, stem: str) -> pd.DataFrame:
    path = root / "sub-01" / datatype / f"{stem}_desc-encoding_scores.tsv"
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def small_unit(builders: SimpleNamespace) -> tuple:
    space = builders.Points(builders.contacts(), "MNI152NLin2009cAsym")
    planted = builders.bumps(space, builders.CENTRES)
    return space, builders.results_of(space, planted)


def test_the_table_holds_every_score_to_six_digits(
    output: Path, builders: SimpleNamespace
):
    space, results = small_unit(builders)
    results["vision"].scores["r"][2] = np.nan
    write_unit(output, {"subject": "01", "task": "film"}, "ieeg", results)
    table = scores(output, "ieeg", "sub-01_task-film")
    assert list(table.columns) == [
        "target", "x", "y", "z", "region", "space", "r", "r2", "alpha", "p", "q",
    ]  # fmt: skip
    for name, result in results.items():
        rows = table[table["space"] == name]
        assert list(rows["target"]) == list(space.table["target"])
        for column in ("r", "r2", "p", "q"):
            np.testing.assert_allclose(rows[column], result.scores[column], rtol=5e-6)
        np.testing.assert_allclose(
            rows["alpha"], result.scores["alpha"].median("fold"), rtol=5e-6
        )
    assert table["region"].isna().all()


def test_a_missing_score_is_written_as_bids_wants_it(
    output: Path, builders: SimpleNamespace
):
    _, results = small_unit(builders)
    results["vision"].scores["r"][0] = np.nan
    (path, *_) = write_unit(output, {"subject": "01"}, "ieeg", results)
    first = path.read_text().splitlines()[1].split("\t")
    assert first[6] == "n/a"
    assert "nan" not in path.read_text()


def test_a_map_holds_each_score_at_the_place_of_its_voxel(
    output: Path, builders: SimpleNamespace
):
    builders.write_volume_unit(output, spacing_mm=9)
    table = scores(output, "func", MNI)
    rows = table[table["space"] == "language"]
    folder = output / "sub-01" / "func"
    for stat, column in (
        ("r", "r"),
        ("rsquared", "r2"),
        ("alpha", "alpha"),
        ("q", "q"),
    ):
        image = nib.load(folder / f"{MNI}_contrast-language_stat-{stat}_statmap.nii.gz")
        inverse = np.linalg.inv(image.affine)
        voxels = nib.affines.apply_affine(inverse, rows[["x", "y", "z"]].to_numpy())
        found = image.get_fdata()[tuple(np.rint(voxels).astype(int).T)]
        np.testing.assert_allclose(found, rows[column], rtol=1e-5)
    mask = nib.load(folder / f"{MNI}_desc-encoding_mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    assert np.asarray(mask.dataobj).sum() == rows["r"].notna().sum()


def test_hemispheres_go_to_their_own_files(output: Path, builders: SimpleNamespace):
    space = builders.Surface()
    side = np.where(space.coords()["hemi"] == "L", 0.5, -0.5)
    results = builders.results_of(space, {"vision": side}, tested=False)
    write_unit(output, {"subject": "01", "space": "fsaverage5"}, "func", results)
    for hemisphere, sign in (("L", 1), ("R", -1)):
        path = (
            output / "sub-01" / "func" / f"sub-01_hemi-{hemisphere}_space-fsaverage5"
            "_contrast-vision_stat-r_statmap.func.gii"
        )
        image = nib.load(path)
        assert image.meta["AnatomicalStructurePrimary"].startswith("Cortex")
        assert np.sign(image.darrays[0].data).mean() == sign


def test_the_same_results_give_the_same_bytes(
    tmp_path: Path, source: Path, builders: SimpleNamespace
):
    written = []
    for name in ("a", "b"):
        root = tmp_path / name
        prepare_output(root, source, {})
        builders.write_volume_unit(root, spacing_mm=12)
        builders.write_surface_unit(root)
        builders.write_ieeg_unit(root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        written.append({p.relative_to(root): p.read_bytes() for p in files})
    assert written[0] == written[1]
    packed = [data for path, data in written[0].items() if path.suffix == ".gz"]
    # Time stamp and file name of the gzip header (RFC 1952) are left empty.
    assert packed
    assert all(data[4:8] == b"\0\0\0\0" and not data[3] & 8 for data in packed)
    assert all(len(gzip.decompress(data)) > 352 for data in packed)


def test_every_file_that_was_written_is_told(output: Path, builders: SimpleNamespace):
    paths = builders.write_volume_unit(output, spacing_mm=12)
    paths += builders.write_eeg_unit(output)
    present = {path for path in (output / "sub-01").rglob("*") if path.is_file()}
    assert set(paths) == present
    assert len(paths) == len(present)


def test_sensors_and_contacts_have_a_table_and_no_map(
    output: Path, builders: SimpleNamespace
):
    paths = builders.write_eeg_unit(output) + builders.write_ieeg_unit(output)
    assert {path.suffix for path in paths} == {".tsv", ".json"}


def test_the_summary_counts_what_was_planted(output: Path, builders: SimpleNamespace):
    builders.write_volume_unit(output, spacing_mm=9)
    table = scores(output, "func", MNI)
    sidecar = json.loads(
        (output / "sub-01" / "func" / f"{MNI}_desc-encoding_scores.json").read_text()
    )
    summary = sidecar["Summary"]
    assert list(summary) == ["vision", "language", "joint"]
    for name, numbers in summary.items():
        rows = table[table["space"] == name]
        assert numbers["n_targets"] - numbers["n_scored"] == 3  # planted as nan
        assert numbers["n_significant"] == (rows["q"] < 0.05).sum()
        assert numbers["max_r"] == pytest.approx(rows["r"].max())
        assert numbers["median_r"] == pytest.approx(rows["r"].median(), rel=1e-5)
        # Alphas are drawn evenly from five values: a fifth lies at each edge.
        assert numbers["alpha_at_edge"]["lowest"] == pytest.approx(0.2, abs=0.03)
        assert numbers["alpha_at_edge"]["highest"] == pytest.approx(0.2, abs=0.03)
    assert summary["vision"]["top_regions"][0]["region"] == "L Lateral occipital"
    assert summary["language"]["top_regions"][0]["region"] == "L Superior temporal"


def test_every_column_and_map_is_described(output: Path, builders: SimpleNamespace):
    paths = builders.write_volume_unit(output, spacing_mm=12)
    paths += builders.write_ieeg_unit(output)
    sidecars = [json.loads(p.read_text()) for p in paths if p.suffix == ".json"]
    assert all(
        {"Description", "SpatialReference", "Sources"} <= set(s) for s in sidecars
    )
    for path in paths:
        if path.name.endswith("_scores.tsv"):
            columns = path.read_text().splitlines()[0].split("\t")
            sidecar = json.loads(path.with_suffix(".json").read_text())
            assert all("Description" in sidecar[column] for column in columns)


def test_sources_are_told_as_bids_uris(
    output: Path, source: Path, builders: SimpleNamespace
):
    _, results = small_unit(builders)
    recording = source / "sub-01" / "ieeg" / "sub-01_task-film_ieeg.vhdr"
    paths = write_unit(output, {"subject": "01"}, "ieeg", results, sources=[recording])
    sidecar = json.loads(paths[1].read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/ieeg/sub-01_task-film_ieeg.vhdr"]


def test_wall_time_is_left_out_since_it_differs_from_run_to_run(
    output: Path, builders: SimpleNamespace
):
    paths = builders.write_ieeg_unit(output)
    told = json.loads(paths[1].read_text())["Provenance"]
    assert told["versions"]["neuromm"] == "0.1.0"
    assert not {"wall_time_s", "peak_memory_bytes"} & set(told)


def test_settings_of_numpy_and_missing_numbers_become_json(
    output: Path, builders: SimpleNamespace
):
    _, results = small_unit(builders)
    design = {"alphas": np.array([1.0, 2.0]), "n": np.int64(3), "t_r_s": float("nan")}
    paths = write_unit(output, {"subject": "01"}, "ieeg", results, design=design)
    told = json.loads(paths[1].read_text())["Encoding"]
    assert (told["alphas"], told["n"], told["t_r_s"]) == ([1.0, 2.0], 3, None)
    assert (told["n_targets"], told["n_folds"]) == (24, 4)


def test_sessions_and_descriptions_of_the_input_are_placed(
    output: Path, builders: SimpleNamespace
):
    _, results = small_unit(builders)
    entities = {"subject": "01", "session": "a", "description": "preproc", "run": None}
    paths = write_unit(output, entities, "ieeg", results)
    assert paths[0] == (
        output / "sub-01/ses-a/ieeg/sub-01_ses-a_desc-encoding_scores.tsv"
    )


def test_feature_spaces_that_would_share_files_are_refused(
    output: Path, builders: SimpleNamespace
):
    _, results = small_unit(builders)
    clash = {"my space": results["vision"], "my-space": results["language"]}
    with pytest.raises(UsageError, match="'my space' and 'my-space' would both"):
        write_unit(output, {"subject": "01"}, "ieeg", clash)


def test_regions_of_another_length_are_refused(output: Path, builders: SimpleNamespace):
    _, results = small_unit(builders)
    with pytest.raises(UsageError, match="got 2 labels for 24 targets"):
        write_unit(output, {"subject": "01"}, "ieeg", results, regions=["a", "b"])
    assert not list(output.glob("sub-*"))


def test_a_unit_needs_a_subject(output: Path, builders: SimpleNamespace):
    _, results = small_unit(builders)
    with pytest.raises(UsageError, match="need a subject"):
        write_unit(output, {"task": "film"}, "ieeg", results)
