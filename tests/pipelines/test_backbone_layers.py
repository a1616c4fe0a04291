"""``--backbone vision=layers:FOLDER``: each target's layer is chosen inside."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from neuromm.features import image_rows, load_backbone, read_features, stimulus_features
from tests.features.tiny_models import save_clip, save_vit
from tests.pipelines.clip_study import NOTHING, VISION, make_clip_study

pytest.importorskip("transformers")

NO_TESTS = ("--n-permutations", "0", "--skip-bids-validation", "--no-joint")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_vit(tmp_path_factory.mktemp("models") / "vit", seed=1)


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    """Runs in which one voxel follows the first block of a network."""
    root = tmp_path_factory.mktemp("film") / "bids"
    return make_clip_study(root, load_backbone(network, layer=1))


@pytest.fixture(scope="module")
def ran(made, network, tmp_path_factory):
    """Layers of a network as candidates, one of them alone, and a folder of results."""
    from neuromm_pipelines.cli import main

    out = tmp_path_factory.mktemp("layers") / "out"
    code = main(
        [
            "encode", str(made.root), str(out), "participant", "--mask", str(made.mask),
            "--n-permutations", "20", "--skip-bids-validation", "--no-joint",
            "--backbone", f"vision=layers:{network}", f"early=layers1,2:{network}",
            f"alone=layer2:{network}",
        ]
    )  # fmt: skip
    return SimpleNamespace(code=code, out=out)


def _table(out, pattern):
    (path,) = out.rglob(pattern)
    return pd.read_csv(path, sep="\t", na_values="n/a")


def test_candidates_are_the_hidden_states_of_one_layer_each(ran, made, network):
    assert ran.code == 0
    (path,) = (ran.out / ".neuromm" / "features").glob("vision-*.npz")
    table = read_features(path)
    assert table.attrs["candidates"] == "layer0:8 layer1:8 layer2:8"
    rows = image_rows(made.root / "stimuli", sorted(made.captions))
    for layer in (0, 1, 2):
        alone = stimulus_features(load_backbone(network, layer=layer), rows, name="x")
        own = [c.startswith(f"layer{layer}/") for c in table.columns]
        np.testing.assert_array_equal(table.values[:, own], alone.values)


def test_the_chosen_layer_of_every_target_and_fold_is_written_and_told(ran):
    choices = _table(ran.out, "*_desc-layers_scores.tsv")
    folds = [name for name in choices if name.startswith("layer_fold")]
    assert len(folds) == 3
    assert set(choices["space"]) == {"vision", "early"}
    assert set(choices.loc[choices["space"] == "early", folds].to_numpy().ravel()) <= {
        "layer1",
        "layer2",
    }
    (sidecar,) = ran.out.rglob("*_desc-layers_scores.json")
    assert (
        "held-out runs 2"
        in json.loads(sidecar.read_text())["layer_fold2"]["Description"]
    )
    vision = choices[choices["space"] == "vision"].set_index("target")
    assert vision.loc[VISION, "layer"] == "layer1"
    assert (vision.loc[VISION, folds] == "layer1").sum() >= 2
    (scores,) = ran.out.rglob("*_desc-encoding_scores.json")
    told = json.loads(scores.read_text())["Summary"]
    shares = told["vision"]["layers_chosen"]
    assert sum(one["all"] for one in shares.values()) == pytest.approx(1, abs=1e-5)
    assert "layers_chosen" not in told["alone"]
    page = (ran.out / "sub-01.html").read_text()
    assert "chosen inside the training folds" in page
    assert "The layer of the network was chosen for each voxel or vertex" in page
    assert "(of vision out of 3, of early out of 2)" in page


def test_the_choice_predicts_more_than_another_layer(ran):
    scores = _table(ran.out, "*_desc-encoding_scores.tsv").set_index("target")
    r = {space: rows["r"] for space, rows in scores.groupby("space")}
    assert r["vision"].idxmax() == VISION
    assert r["vision"][VISION] > 0.5
    assert r["vision"][VISION] > r["alone"][VISION]
    assert abs(r["vision"][NOTHING]) < 0.3


def test_a_merged_job_array_has_the_same_choices(
    neuromm,
    made,
    network,
    tmp_path,
    files_of,
):
    def words(output, *more):
        return [
            "encode", made.root, output, "participant", "--mask", made.mask, *NO_TESTS,
            "--backbone", f"vision=layers1,2:{network}", *more,
        ]  # fmt: skip

    whole, array = tmp_path / "whole", tmp_path / "array"
    assert neuromm(*words(whole, "--chunks", "2")).code == 0
    for task in ("2/2", "1/2"):
        assert neuromm(*words(array, "--targets-chunk", task)).code == 0
    merged = neuromm("merge", array)
    assert merged.code == 0, merged.err
    assert files_of(array) == files_of(whole)
    assert [*whole.rglob("*_desc-layers_scores.tsv")]


def test_delayed_copies_stay_with_their_layer_and_sites_take_the_candidates(
    neuromm,
    made,
    network,
    tmp_path,
):
    clip = save_clip(tmp_path / "clip", seed=1)
    out = tmp_path / "out"
    ran = neuromm(
        "encode", made.root, out, "participant", "--mask", made.mask, *NO_TESTS,
        "--hrf", "fir", "--delays", "2", "3", "--sites", "--n-resamples", "100",
        "--backbone", f"vision=layers1,2:{network}", f"language=layers:text:{clip}",
        f"joint={clip}",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    choices = _table(out, "*_desc-layers_scores.tsv")
    assert set(choices["space"]) == {"vision", "language"}
    assert [*out.rglob("*_desc-multimodalsites_scores.tsv")]


def test_a_dry_run_says_which_layers_would_be_embedded(
    neuromm,
    made,
    network,
    tmp_path,
):
    ran = neuromm(
        "encode", made.root, tmp_path / "out", "participant", "--mask", made.mask,
        *NO_TESTS, "--backbone", f"vision=layers-1,0:{network}", "--dry-run",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "one of hidden states 2, 0)" in ran.out
    assert "x 16 features" in ran.out


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("layers:image-statistics", "layer"),
        ("layer1:layers:{vit}", "give one of them"),
        ("layers7:{vit}", "hidden states 0 to 2"),
        ("layers2,-1:{vit}", "each once"),
        ("layers:{clip}", "those of one tower"),
    ],
)
def test_layers_that_cannot_be_chosen_are_told_before_anything_is_written(
    neuromm,
    made,
    network,
    tmp_path,
    spec,
    told,
):
    clip = save_clip(Path(tmp_path) / "clip")
    out = tmp_path / "out"
    named = spec.format(vit=network, clip=clip)
    ran = neuromm(
        "encode", made.root, out, "participant", "--mask", made.mask, *NO_TESTS,
        "--backbone", f"x={named}",
    )  # fmt: skip
    assert ran.code == 2, ran.err
    assert told in ran.err
    assert not out.exists()


def test_a_plan_counts_a_fit_for_each_layer():
    from neuromm_pipelines.encode_sites import n_site_models

    def counted(protocol, layers):
        sites = SimpleNamespace(
            protocol=protocol, unimodal=("vision", "language"), controls=(),
            multimodal="joint", n_resamples=100,
        )  # fmt: skip
        config = SimpleNamespace(
            sites=sites, features=dict.fromkeys(("vision", "language", "joint"))
        )
        return n_site_models(config, layers)

    # Two unimodal spaces, the joint one, concatenation and banded ridge.
    assert counted("default", {}) == 5
    assert counted("default", {"vision": 3, "other": 9}) == 7
    # No banded ridge; all once more in each of 100 resamples.
    assert counted("subramaniam2024", {"vision": 3}) == 6 * 101
