"""``neuromm encode --backbone``: features come from the stimuli of a data set."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from neuromm.features import (
    image_rows,
    load_backbone,
    paired_rows,
    read_features,
    stimulus_features,
    text_rows,
    word_rows,
    write_features,
)
from neuromm.features.built_in_backbones import HashedText, ImageStatistics
from tests.features.tiny_models import save_clip, save_vit
from tests.pipelines.clip_study import (
    LANGUAGE,
    N_STIMULI,
    NOTHING,
    TOPICS,
    VISION,
    make_clip_study,
)

NO_TESTS = ("--n-permutations", "0", "--skip-bids-validation", "--no-joint")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs in which one voxel follows the images, one their captions, others none."""
    return make_clip_study(tmp_path_factory.mktemp("film") / "bids")


@pytest.fixture
def data(made, tmp_path):
    """A copy that a test may spoil."""
    root = tmp_path / "bids"
    shutil.copytree(made.root, root)
    return SimpleNamespace(root=root, mask=made.mask, captions=made.captions)


@pytest.fixture
def embedded(monkeypatch):
    """Stimuli that were embedded since the test began."""
    seen = []
    for kind in (ImageStatistics, HashedText):

        def embed(self, stimuli, plain=kind.embed):
            seen.extend(stimuli)
            return plain(self, stimuli)

        monkeypatch.setattr(kind, "embed", embed)
    return seen


def _edit_events(data, change):
    for path in data.root.rglob("*_events.tsv"):
        events = change(pd.read_csv(path, sep="\t", dtype=str))
        events.to_csv(path, sep="\t", index=False, na_rep="n/a")


def _words(data, output, *spaces, more=()):
    return [
        "encode", data.root, output, "participant", "--mask", data.mask,
        *NO_TESTS, *spaces, *more,
    ]  # fmt: skip


def _scores(output):
    (path,) = output.rglob("*_desc-encoding_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a")


def _r(output, space):
    scores = _scores(output)
    return scores[scores["space"] == space].set_index("target")["r"]


VISION_FLAG = ("--backbone", "vision=image-statistics")
BOTH = (*VISION_FLAG, "language=hashed-text")
ALL = (*BOTH, "joint=image-text-product")


def test_planted_responses_are_found_by_features_of_the_stimuli(
    neuromm, made, tmp_path
):
    ran = neuromm(*_words(made, tmp_path / "out", *ALL))
    assert ran.code == 0, ran.err
    vision, language = (_r(tmp_path / "out", space) for space in ("vision", "language"))
    joint = _r(tmp_path / "out", "joint")
    assert vision.idxmax() == VISION
    assert language.idxmax() == LANGUAGE
    assert set(joint.nlargest(2).index) == {VISION, LANGUAGE}
    assert min(vision[VISION], language[LANGUAGE]) > 0.5
    assert max(vision[LANGUAGE], language[VISION], joint[NOTHING]) < 0.3


def test_the_numbers_are_those_of_features_that_were_exported(neuromm, made, tmp_path):
    images = image_rows(made.root / "stimuli", sorted(made.captions))
    texts = text_rows(made.captions)
    rows = {
        "image-statistics": images,
        "hashed-text": texts,
        "image-text-product": paired_rows(images, texts),
    }
    named = []
    for flag in ALL[1:]:
        space, _, name = flag.partition("=")
        table = stimulus_features(load_backbone(name), rows[name], name=space)
        path = write_features(tmp_path / f"{space}.npz", table)
        named.append(f"{space}={path}")
    computed, read = tmp_path / "computed", tmp_path / "read"
    assert neuromm(*_words(made, computed, *ALL)).code == 0
    assert neuromm(*_words(made, read, "--features", *named)).code == 0
    pd.testing.assert_frame_equal(_scores(computed), _scores(read), check_exact=True)


def test_a_second_run_embeds_nothing_and_skips_what_is_done(
    neuromm, made, tmp_path, embedded, files_of
):
    out = tmp_path / "out"
    assert neuromm(*_words(made, out, *BOTH)).code == 0
    assert len(embedded) == 2 * N_STIMULI
    before = files_of(out)
    embedded.clear()
    again = neuromm(*_words(made, out, *BOTH))
    assert again.out.splitlines()[-1] == "neuromm encode: 0 done, 1 skipped, 0 failed"
    assert not embedded
    assert files_of(out) == before


def test_a_changed_image_is_embedded_anew_and_the_old_result_refused(
    neuromm, data, tmp_path, embedded
):
    out = tmp_path / "out"
    assert neuromm(*_words(data, out, *VISION_FLAG)).code == 0
    embedded.clear()
    first = data.root / "stimuli" / "clip00.png"
    shutil.copy(data.root / "stimuli" / "clip01.png", first)
    refused = neuromm(*_words(data, out, *VISION_FLAG))
    assert embedded
    assert refused.code == 2
    assert "--overwrite" in refused.err
    anew = neuromm(*_words(data, out, *VISION_FLAG, more=("--overwrite",)))
    assert anew.code == 0, anew.err


def test_every_output_names_the_stand_in(neuromm, made, tmp_path):
    out = tmp_path / "out"
    assert neuromm(*_words(made, out, *BOTH)).code == 0
    (sidecar,) = out.rglob("*_desc-encoding_scores.json")
    told = json.loads(sidecar.read_text())
    text = json.dumps(told)
    assert "stand-in" in text
    assert "image-statistics" in text
    (report,) = out.glob("sub-01.html")
    page = report.read_text()
    assert "not of a network: vision (image-statistics), language (hashed-text)" in page
    assert load_backbone("hashed-text").attrs["weights_sha256"] in page
    assert "column caption" in page
    ran = neuromm(*_words(made, out, *BOTH, more=("--boilerplate-only",)))
    methods = Path(ran.out.splitlines()[0]).read_text()
    assert "model image-statistics, stand-in" in methods


def test_a_dry_run_says_what_would_be_embedded_and_embeds_nothing(
    neuromm, made, tmp_path, embedded
):
    out = tmp_path / "out"
    ran = neuromm(*_words(made, out, *BOTH, more=("--dry-run",)))
    assert ran.code == 0, ran.err
    dim = load_backbone("image-statistics").dim
    assert (
        f"embed vision: image-statistics (stand-in, layer: 4 x 4 cells, spectrum), "
        f"{N_STIMULI} stimuli (images of stimuli/) x {dim} features" in ran.out
    )
    assert f"{dim + 256} features" in ran.out
    assert not embedded
    assert not out.exists()


def test_features_of_a_file_and_of_a_backbone_go_together(neuromm, made, tmp_path):
    table = tmp_path / "given.tsv"
    numbers = np.random.default_rng(1).standard_normal(N_STIMULI)
    frame = pd.DataFrame({"stim_file": sorted(made.captions), "x": numbers})
    frame.to_csv(table, sep="\t", index=False)
    out = tmp_path / "out"
    ran = neuromm(*_words(made, out, *VISION_FLAG, "--features", f"given={table}"))
    assert ran.code == 0, ran.err
    assert set(_scores(out)["space"]) == {"given", "vision"}


def test_chunks_and_a_merged_job_array_give_the_same_bytes(
    neuromm, made, tmp_path, files_of, embedded, monkeypatch
):
    whole, array = tmp_path / "whole", tmp_path / "array"
    assert neuromm(*_words(made, whole, *BOTH, more=("--chunks", "2"))).code == 0
    embedded.clear()
    for task in ("2/2", "1/2"):
        part = ("--targets-chunk", task)
        assert neuromm(*_words(made, array, *BOTH, more=part)).code == 0
    assert len(embedded) == 2 * N_STIMULI
    monkeypatch.chdir(tmp_path)
    merged = neuromm("merge", "array")
    assert merged.code == 0, merged.err
    assert files_of(array) == files_of(whole)


def test_a_job_array_is_merged_where_its_folder_was_moved(
    neuromm, made, tmp_path, files_of
):
    whole, array, moved = (tmp_path / name for name in ("whole", "array", "moved"))
    assert neuromm(*_words(made, whole, *VISION_FLAG, more=("--chunks", "2"))).code == 0
    for task in ("2/2", "1/2"):
        part = ("--targets-chunk", task)
        assert neuromm(*_words(made, array, *VISION_FLAG, more=part)).code == 0
    array.rename(moved)
    merged = neuromm("merge", moved)
    assert merged.code == 0, merged.err
    assert files_of(moved) == files_of(whole)


def test_words_are_embedded_with_their_context_and_joined_by_onset(
    neuromm, data, tmp_path
):
    spoken = np.random.default_rng(2)
    _edit_events(
        data,
        lambda events: events.drop(columns=["stim_file", "caption"]).assign(
            word=spoken.choice(sum(TOPICS, ()), len(events))
        ),
    )
    out, read = tmp_path / "out", tmp_path / "read"
    flags = ("--backbone", "language=hashed-text", "--context-words", "3")
    assert neuromm(*_words(data, out, *flags)).code == 0
    runs = [
        pd.read_csv(path, sep="\t").assign(run=path.name.split("_run-")[1][0])
        for path in sorted(data.root.rglob("*_events.tsv"))
    ]
    rows = word_rows(pd.concat(runs), context=3)
    table = stimulus_features(load_backbone("hashed-text"), rows, name="language")
    path = write_features(tmp_path / "language.npz", table)
    assert neuromm(*_words(data, read, "--features", f"language={path}")).code == 0
    pd.testing.assert_frame_equal(_scores(out), _scores(read), check_exact=True)


def test_texts_may_lie_beside_the_images_or_be_the_trial_type(neuromm, data, tmp_path):
    from_column = tmp_path / "column"
    flags = ("--backbone", "language=hashed-text")
    assert neuromm(*_words(data, from_column, *flags)).code == 0
    for name, caption in data.captions.items():
        (data.root / "stimuli" / name).with_suffix(".txt").write_text(caption)
    _edit_events(
        data,
        lambda events: events.rename(columns={"caption": "kind"}).assign(
            trial_type=lambda e: e["kind"].str.split().str[0]
        ),
    )
    beside, kinds = tmp_path / "beside", len(sum(TOPICS, ()))
    assert neuromm(*_words(data, beside, *flags)).code == 0
    pd.testing.assert_frame_equal(_scores(from_column), _scores(beside))
    by_type = (*flags, "--text-column", "trial_type", "--dry-run")
    ran = neuromm(*_words(data, tmp_path / "kinds", *by_type))
    assert ran.code == 0, ran.err
    assert f"{kinds} stimuli (column trial_type)" in ran.out


def test_towers_and_the_random_twin_of_a_folder_are_feature_spaces(
    neuromm, made, tmp_path
):
    pytest.importorskip("transformers")
    clip = save_clip(tmp_path / "clip", seed=1)  # the twin has seed 0
    out = tmp_path / "out"
    spaces = (
        "--backbone", f"vision=image:{clip}", f"language=text:{clip}", f"joint={clip}",
        f"twin=random:image:{clip}",
    )  # fmt: skip
    ran = neuromm(*_words(made, out, *spaces))
    assert ran.code == 0, ran.err
    tables = {
        path.name.split("-")[0]: read_features(path)
        for path in (out / ".neuromm" / "features").glob("*.npz")
    }
    widths = {name: table.values.shape[1] for name, table in tables.items()}
    assert widths == {"vision": 6, "language": 6, "joint": 12, "twin": 6}
    kinds = {name: table.attrs["kind"] for name, table in tables.items()}
    assert kinds == dict.fromkeys(("vision", "language", "joint"), "trained") | {
        "twin": "random twin"
    }
    assert not np.allclose(tables["twin"].values, tables["vision"].values)
    assert (
        tables["vision"].attrs["weights_sha256"][:12]
        in (out / "sub-01.html").read_text()
    )


def test_layers_of_a_folder_give_the_numbers_of_exported_layers(
    neuromm, made, tmp_path
):
    pytest.importorskip("transformers")
    vit = save_vit(tmp_path / "vit", seed=1)
    images = image_rows(made.root / "stimuli", sorted(made.captions))
    named = []
    for space, layer, random in (("early", 1, False), ("twin", 1, True)):
        backbone = load_backbone(vit, layer=layer, random=random, seed=0)
        table = stimulus_features(backbone, images, name=space)
        named.append(f"{space}={write_features(tmp_path / f'{space}.npz', table)}")
    spaces = ("--backbone", f"early=layer1:{vit}", f"twin=layer1:random:{vit}")
    computed, read = tmp_path / "computed", tmp_path / "read"
    ran = neuromm(*_words(made, computed, *spaces, f"late={vit}"))
    assert ran.code == 0, ran.err
    assert neuromm(*_words(made, read, "--features", *named)).code == 0
    scores = _scores(computed)
    exported = scores[scores["space"] != "late"].reset_index(drop=True)
    pd.testing.assert_frame_equal(exported, _scores(read), check_exact=True)
    assert not _r(computed, "early").equals(_r(computed, "late"))


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (("vision=layer1:image-statistics",), 2, "layer"),
        (("vision=layer1:",), 2, "no network follows"),
        (("vision=resnet",), 2, "expected one of image-statistics, colorstats"),
        (("vision",), 2, "--backbone takes NAME=BACKBONE"),
        (("a=hashed-text", "a=hashed-text"), 2, "names 'a' twice"),
        (("vision=random:image-statistics",), 2, "no random twin"),
        (("vision=text:image-statistics",), 2, "takes image stimuli, not text"),
        (("x=hashed-text", "--text-column", "speech"), 2, "columns of events.tsv"),
        (("x=hashed-text", "--context-words", "-1"), 2, "--context-words must be 0"),
        (("given=hashed-text", "--features", "given=x.tsv"), 2, "leave one of them"),
        (("x=hashed-text", "--trial-type", "face"), 65, "no event has trial_type face"),
    ],
)
def test_what_cannot_be_computed_is_told_before_anything_is_written(
    neuromm, made, tmp_path, flags, code, told
):
    out = tmp_path / "out"
    ran = neuromm(*_words(made, out, "--backbone", *flags))
    assert ran.code == code
    assert told in ran.err
    assert not out.exists()


def _no_folder(data):
    shutil.rmtree(data.root / "stimuli")


def _no_file(data):
    (data.root / "stimuli" / "clip07.png").unlink()


def _no_text(data):
    _edit_events(data, lambda events: events.drop(columns="caption"))


def _no_column(data):
    _edit_events(data, lambda events: events.drop(columns=["caption", "stim_file"]))


def _films(data):
    _edit_events(
        data,
        lambda events: events.assign(
            stim_file=events["stim_file"].str.replace(".png", ".mp4")
        ),
    )


def _two_captions(data):
    paths = sorted(data.root.rglob("*_events.tsv"))
    events = pd.read_csv(paths[0], sep="\t", dtype=str)
    events.loc[0, "stim_file"] = events.loc[1, "stim_file"]
    events.to_csv(paths[0], sep="\t", index=False)


@pytest.mark.parametrize(
    ("spoil", "backbone", "code", "told"),
    [
        (_no_folder, "image-statistics", 66, "has no folder stimuli"),
        (_no_file, "image-statistics", 66, "lacks 1 of 96 stimuli: clip07.png"),
        (_no_text, "hashed-text", 2, "the stimuli have no text: clip00.png"),
        (_no_text, "image-text-product", 2, "put clip00.txt beside clip00.png"),
        (_no_column, "image-statistics", 65, "expected a column stim_file"),
        (_no_column, "hashed-text", 65, "expected a column word, text, caption"),
        (_films, "image-statistics", 66, "lacks 96 of 96 stimuli: clip00.mp4"),
        (_films, "image-text-product", 2, "96 of 96 stimuli are none: clip00.mp4"),
        (_two_captions, "hashed-text", 65, "each stimulus needs one text"),
    ],
)
def test_stimuli_that_do_not_fit_the_backbone_are_told_with_the_cure(
    neuromm, data, tmp_path, spoil, backbone, code, told
):
    spoil(data)
    out = tmp_path / "out"
    ran = neuromm(*_words(data, out, "--backbone", f"x={backbone}"))
    assert ran.code == code, ran.err
    assert told in ran.err
    assert not out.exists()


def test_a_damaged_image_is_named_and_leaves_no_result(neuromm, data, tmp_path):
    path = data.root / "stimuli" / "clip07.png"
    path.write_bytes(path.read_bytes()[:100])
    out = tmp_path / "out"
    ran = neuromm(*_words(data, out, *VISION_FLAG))
    assert ran.code == 65, ran.err
    assert "clip07.png" in ran.err
    assert not [*out.rglob("sub-*"), *out.rglob("*.npz")]


def test_features_that_do_not_fit_into_memory_are_refused(neuromm, made, tmp_path):
    out = tmp_path / "out"
    ran = neuromm(*_words(made, out, *BOTH, more=("--mem", "0.01")))
    assert ran.code == 75
    assert "the features of all stimuli need" in ran.err
    assert not out.exists()
