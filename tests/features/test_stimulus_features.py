"""From stimuli to tables: the right stimulus at the right key, computed once."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.features import (
    FeatureCache,
    WordInContext,
    event_features,
    feature_cache,
    film_frames,
    frame_rows,
    image_rows,
    layer_features,
    load_backbone,
    module_backbone,
    paired_rows,
    read_features,
    scene_cuts,
    stimulus_features,
    text_file_rows,
    text_rows,
    word_rows,
    words_at,
    write_features,
)
from neuromm.features.feature_cache import default_cache_folder, stimulus_digest
from tests.features.tiny_models import pictures


class Counting:
    """A backbone whose features are sums of pixels, and that counts what it sees."""

    name, dim, modality = "counting", 3, "image"

    def __init__(self, weight=1.0, kind="trained"):
        self.weight, self.kind = weight, kind
        self.seen = 0
        self.fails_after = None

    @property
    def attrs(self):
        return {
            "model": self.name,
            "kind": self.kind,
            "layer": "output",
            "pooling": "none",
            "preprocessing": "none",
            "weights_sha256": f"{self.weight}",
        }

    def embed(self, stimuli):
        if self.fails_after is not None and self.seen >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += len(stimuli)
        sums = [self.weight * np.asarray(s).sum(axis=(0, 1)) for s in stimuli]
        return np.array(sums, dtype=np.float32)

    def tokens(self, stimuli):
        return []


@pytest.fixture
def images():
    return image_table(pictures(7))


def image_table(arrays):
    from neuromm.features import StimulusRows

    keys = pd.DataFrame({"stim_file": [f"{i}.png" for i in range(len(arrays))]})
    return StimulusRows(tuple(arrays), keys, "image")


# --- keys and stimuli ---


def test_images_of_a_folder_are_keyed_as_events_name_them(tmp_path):
    (tmp_path / "faces").mkdir()
    for name, pixels in zip(("faces/anna.png", "b.png"), pictures(2), strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    named = ["stimuli/faces/anna.png", "b.png", "n/a", "./faces/anna.png"]
    rows = image_rows(tmp_path, named)
    assert list(rows.keys["stim_file"]) == ["faces/anna.png", "b.png"]
    table = stimulus_features(load_backbone("image-statistics"), rows, name="vision")
    path = write_features(tmp_path / "vision.npz", table)
    events = pd.DataFrame(
        {"onset": [0.0, 2.0], "duration": 1.0, "stim_file": ["b.png", "faces/anna.png"]}
    )
    found = event_features(read_features(path), events)
    np.testing.assert_array_equal(found.values, table.values[[1, 0]])
    with pytest.raises(InputMissingError, match=r"lacks 1 of 2 stimuli: c\.png"):
        image_rows(tmp_path, ["b.png", "c.png"])
    with pytest.raises(DataError, match="leads out of"):
        image_rows(tmp_path / "faces", ["../b.png"])
    with pytest.raises(DataError, match="name no stimulus"):
        image_rows(tmp_path, ["n/a"])


def test_texts_beside_images_describe_them(tmp_path):
    (tmp_path / "anna.txt").write_text("a smiling woman\n", encoding="utf-8")
    (tmp_path / "story.txt").write_text("once upon a time", encoding="utf-8")
    rows = text_file_rows(tmp_path, ["anna.png", "story.txt"])
    assert rows.stimuli == ("a smiling woman", "once upon a time")
    assert list(rows.keys["stim_file"]) == ["anna.png", "story.txt"]
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="is empty"):
        text_file_rows(tmp_path, ["empty.png"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        text_file_rows(tmp_path, ["latin.txt"])


WORDS = pd.DataFrame(
    {
        "onset": [0.0, 0.4, 0.9, 1.3, 0.2, 0.6],
        "duration": 0.3,
        "word": ["The", "cat", "n/a", "sat.", "Dogs", "bark."],
        "sentence": [1, 1, 1, 2, 1, 1],
        "run": ["01", "01", "01", "01", "02", "02"],
    },
    index=[0, 0, 1, 1, 2, 2],
)


def test_a_word_comes_with_the_words_before_it_of_its_run():
    rows = word_rows(WORDS, context=1)
    assert rows.stimuli == (
        WordInContext("The", 0, 3),
        WordInContext("The cat", 4, 7),
        WordInContext("cat sat.", 4, 8),
        WordInContext("Dogs", 0, 4),
        WordInContext("Dogs bark.", 5, 10),
    )
    assert rows.keys["onset"].tolist() == [0.0, 0.4, 1.3, 0.2, 0.6]
    assert rows.keys["run"].tolist() == ["01", "01", "01", "02", "02"]
    assert "duration" in rows.keys
    alone = word_rows(WORDS, context=0, vector="text")
    assert alone.stimuli == ("The", "cat", "sat.", "Dogs", "bark.")


def test_sentences_bound_a_context():
    texts = {
        context: word_rows(WORDS, context=context, unit="sentences", vector="text")
        for context in (0, 1)
    }
    assert texts[0].stimuli == ("The", "The cat", "sat.", "Dogs", "Dogs bark.")
    assert texts[1].stimuli[2] == "The cat sat."
    with pytest.raises(DataError, match="have no column sentence"):
        word_rows(WORDS.drop(columns="sentence"), unit="sentences")


def test_no_context_looks_ahead_whatever_the_order_of_the_table():
    shuffled = WORDS.sample(frac=1, random_state=3)
    expected = word_rows(WORDS)
    rows = word_rows(shuffled)
    paired = {
        (run, onset): stimulus
        for run, onset, stimulus in zip(
            rows.keys["run"], rows.keys["onset"], rows.stimuli, strict=True
        )
    }
    for run, onset, stimulus in zip(
        expected.keys["run"], expected.keys["onset"], expected.stimuli, strict=True
    ):
        assert paired[run, onset] == stimulus


def test_words_become_a_table_that_events_find(tmp_path):
    table = stimulus_features(
        load_backbone("hashed-text"), word_rows(WORDS), name="language"
    )
    path = write_features(tmp_path / "language.tsv", table)
    events = WORDS[(WORDS["run"] == "02")][["onset", "duration"]]
    found = event_features(read_features(path), events, run="2")
    np.testing.assert_allclose(found.values, table.values[3:], rtol=1e-6)


def film(n_frames=20):
    """Two scenes: dark until frame 8, bright from there."""
    dark, bright = (np.full((36, 48, 3), level, dtype=np.uint8) for level in (20, 220))
    rng = np.random.default_rng(0)
    return [
        (dark if i < 8 else bright) + rng.integers(0, 9, (36, 48, 3), dtype=np.uint8)
        for i in range(n_frames)
    ]


def test_a_cut_is_found_where_the_scene_changes():
    np.testing.assert_allclose(scene_cuts(film(), 10.0), [0.8])
    assert scene_cuts(film()[:8], 10.0).size == 0
    flicker = [f for pair in zip(film()[:8], film()[8:16], strict=True) for f in pair]
    # A cut at every frame, 0.1 s apart: scenes last 0.6 s or longer.
    np.testing.assert_allclose(scene_cuts(flicker, 10.0), [0.6, 1.2])


def test_the_frame_of_an_event_is_the_one_on_the_screen():
    frames = film()
    # 7.99 frames: still frame 7. A cut at 8 / 10 s is frame 8 in spite of rounding.
    rows = frame_rows(frames, 10.0, [0.0, 0.799, 0.8, 1.95], run="1")
    assert [next(i for i, f in enumerate(frames) if f is s) for s in rows.stimuli] == [
        0, 7, 8, 19,
    ]  # fmt: skip
    for fps in (24.0, 25.0, 29.97, 30.0):
        rows = frame_rows(range(500), fps, np.arange(500) / fps)
        assert rows.stimuli == tuple(range(500))
    with pytest.raises(DataError, match=r"outside the film of 2 s .* first at 2 s"):
        frame_rows(frames, 10.0, [0.0, 2.0])


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for number in (2, 10, 1, 3, 4, 5, 6, 7, 8, 9):
        Image.fromarray(pictures(1)[0]).save(tmp_path / f"f_{number}.png")
    assert [p.stem for p in film_frames(tmp_path)] == [f"f_{i}" for i in range(1, 11)]
    (tmp_path / "f_5.png").unlink()
    with pytest.raises(DataError, match=r"f_6\.png follows f_4\.png"):
        film_frames(tmp_path)
    with pytest.raises(InputMissingError, match="holds no image"):
        film_frames(tmp_path / "..")


def test_a_frame_is_paired_with_the_words_at_the_cut():
    cuts = [0.8, 1.2]
    texts = words_at(WORDS, cuts, context=1, run="1")
    assert texts.stimuli == ("The cat", "cat sat.")
    pairs = paired_rows(frame_rows(film(), 10.0, cuts, run="01"), texts)
    assert pairs.modality == "joint"
    assert [text for _, text in pairs.stimuli] == ["The cat", "cat sat."]
    joint = stimulus_features(load_backbone("image-text-product"), pairs, name="joint")
    assert joint.values.shape == (2, 192)
    with pytest.raises(DataError, match="name the run"):
        words_at(WORDS, cuts)
    later = frame_rows(film(), 10.0, [0.8, 1.3], run="1")
    with pytest.raises(DataError, match="1 images have no text of the same onset"):
        paired_rows(later, texts)


def test_images_and_texts_are_paired_by_key_and_not_by_place(images):
    captions = text_rows(
        {f"stimuli/{i}.png": f"text {i}" for i in (6, 5, 4, 3, 2, 1, 0)}
    )
    pairs = paired_rows(images, captions)
    assert [text for _, text in pairs.stimuli] == [f"text {i}" for i in range(7)]
    with pytest.raises(DataError, match="expected images and texts"):
        paired_rows(captions, images)
    with pytest.raises(DataError, match="keyed by stim_file and texts by trial_type"):
        paired_rows(images, text_rows({"face": "a face"}, key="trial_type"))


def test_a_backbone_is_given_its_own_kind_of_stimulus(images):
    with pytest.raises(UsageError, match="takes text stimuli, and the rows are of im"):
        stimulus_features(load_backbone("hashed-text"), images, name="x")


# --- tables ---


def test_a_table_says_what_it_was_computed_with(images):
    backbone = load_backbone("image-statistics")
    table = stimulus_features(backbone, images, name="vision", projection_dim=10)
    assert table.attrs == {
        **backbone.attrs,
        "projection": "sparse random, 10 columns, seed 0",
    }
    assert table.attrs["kind"] == "stand-in"
    assert table.values.shape == (7, 10)


def test_a_stimulus_that_comes_often_is_embedded_once():
    one, other = pictures(2)
    backbone = Counting()
    table = stimulus_features(backbone, image_table([one, other, one, one]), name="x")
    assert backbone.seen == 2
    np.testing.assert_array_equal(table.values[[0, 0, 0]], table.values[[0, 2, 3]])


def test_values_that_are_not_finite_are_refused(images):
    with pytest.raises(DataError, match=r"not finite, first for row 1 \(output\)"):
        stimulus_features(Counting(weight=np.inf), images, name="x")


def small_network(seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.5)
    )
    return module_backbone(
        net,
        lambda stimuli: np.stack(stimuli).transpose(0, 3, 1, 2).astype("f4") / 255,
        name="net",
        dim=4,
        preprocessing="divided by 255",
    )


@pytest.mark.parametrize("cached", [False, True])
def test_layers_become_tables(images, cached, tmp_path):
    cache = FeatureCache(tmp_path, part_rows=3) if cached else None
    tables = layer_features(
        small_network(), images, name="vision", projection_dim=5, cache=cache
    )
    assert list(tables) == ["0", "1"]
    table = tables["1"]
    assert (table.name, table.values.shape) == ("vision@1", (7, 5))
    assert table.attrs["layer"] == "1"
    assert table.attrs["projection"] == "sparse random, 5 columns, seed 0"
    named = layer_features(
        small_network(), images, name="vision", projection_dim=5, layers=["1"]
    )
    np.testing.assert_allclose(named["1"].values, table.values, rtol=1e-4)
    with pytest.raises(UsageError, match="has no layers"):
        layer_features(load_backbone("image-statistics"), images, name="x")


# --- cache ---


def test_cached_features_are_not_computed_again(images, tmp_path):
    cache = FeatureCache(tmp_path, part_rows=3)
    first = stimulus_features(Counting(), images, name="vision", cache=cache)
    again = Counting()
    second = stimulus_features(again, images, name="other", cache=cache)
    assert again.seen == 0
    np.testing.assert_array_equal(first.values, second.values)
    settings = json.loads(next(tmp_path.glob("*/settings.json")).read_text())
    assert settings == again.attrs


def test_a_changed_weight_setting_or_stimulus_is_computed_anew(images, tmp_path):
    cache = FeatureCache(tmp_path, part_rows=3)
    stimulus_features(Counting(), images, name="x", cache=cache)
    changed = [s.copy() for s in images.stimuli]
    changed[4][0, 0, 0] ^= 1
    cases = [
        (Counting(weight=2.0), images),
        (Counting(kind="random twin"), images),
        (Counting(), image_table(changed)),
        (Counting(), image_table(images.stimuli[::-1])),
    ]
    for backbone, rows in cases:
        table = stimulus_features(backbone, rows, name="x", cache=cache)
        assert backbone.seen == 7
        np.testing.assert_array_equal(table.values, backbone.embed(rows.stimuli))


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(images, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    stimulus_features(
        Counting(), images, name="x", cache=FeatureCache(whole, part_rows=2)
    )
    stopped = Counting()
    stopped.fails_after = 4
    cache = FeatureCache(killed, part_rows=2)
    with pytest.raises(KeyboardInterrupt):
        stimulus_features(stopped, images, name="x", cache=cache)
    resumed = Counting()
    stimulus_features(resumed, images, name="x", cache=cache)
    assert resumed.seen == 3
    files = {p.relative_to(whole) for p in whole.rglob("*.npz")}
    assert len(files) == 4
    assert {p.relative_to(killed) for p in killed.rglob("*.npz")} == files
    for file in files:
        with np.load(whole / file) as one, np.load(killed / file) as other:
            np.testing.assert_array_equal(one["embedding"], other["embedding"])
    assert not list(killed.rglob("*.tmp-*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "rows"])
def test_a_damaged_part_is_computed_again(images, tmp_path, damage):
    cache = FeatureCache(tmp_path, part_rows=3)
    expected = stimulus_features(Counting(), images, name="x", cache=cache)
    part = sorted(tmp_path.rglob("*.npz"))[1]
    content = bytearray(part.read_bytes())
    if damage == "cut":
        part.write_bytes(content[:-30])
    elif damage == "flipped":
        content[200] ^= 255
        part.write_bytes(content)
    else:
        np.savez(part, embedding=np.zeros((2, 3), dtype=np.float32))
    backbone = Counting()
    table = stimulus_features(backbone, images, name="x", cache=cache)
    assert backbone.seen == 3
    np.testing.assert_array_equal(table.values, expected.values)


def test_changed_weights_of_a_network_make_its_layers_anew(images, tmp_path):
    cache = FeatureCache(tmp_path)
    one = layer_features(small_network(0), images, name="x", cache=cache)
    other = layer_features(small_network(1), images, name="x", cache=cache)
    assert np.abs(one["1"].values - other["1"].values).max() > 1e-3
    again = layer_features(small_network(0), images, name="x", cache=cache)
    np.testing.assert_array_equal(one["1"].values, again["1"].values)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_digest_is_of_the_content(tmp_path):
    (pixels,) = pictures(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.png", compress_level=0)
    same = {
        stimulus_digest(s)
        for s in (pixels, tmp_path / "a.png", tmp_path / "b.png", pixels / 255)
    }
    assert len(same) == 1
    different = [
        "the cat",
        ("the", " cat"),
        ("the cat",),
        WordInContext("the cat", 4, 7),
        WordInContext("the cat", 0, 3),
        pixels,
        pixels.transpose(1, 0, 2),
        (pixels, "the cat"),
    ]
    assert len({stimulus_digest(s) for s in different}) == len(different)
    with pytest.raises(UsageError, match="must be a text, an image or a pair"):
        stimulus_digest(3)


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROMM_CACHE_DIR", str(tmp_path / "chosen"))
    assert default_cache_folder() == tmp_path / "chosen" / "features"
    assert FeatureCache().folder == tmp_path / "chosen" / "features"
    monkeypatch.delenv("NEUROMM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "neuromm" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder().parts[-3:] == (".cache", "neuromm", "features")
    with pytest.raises(UsageError, match="part_rows must be"):
        FeatureCache(part_rows=0)


def test_numbers_are_the_same_with_and_without_a_cache(images, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_PART_ROWS", 3)
    plain = layer_features(small_network(), images, name="x")
    kept = layer_features(
        small_network(), images, name="x", cache=FeatureCache(tmp_path, part_rows=3)
    )
    np.testing.assert_array_equal(plain["1"].values, kept["1"].values)
