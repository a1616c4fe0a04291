import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.report.naming import bids_name, contrast_label, parse_name

LABELS = st.text("abcXYZ019", min_size=1, max_size=6)
ENTITIES = st.dictionaries(
    st.sampled_from(
        ["subject", "session", "task", "acquisition", "run", "hemisphere", "space",
         "resolution", "contrast", "stat", "description"]
    ),
    LABELS,
    min_size=1,
)  # fmt: skip


def test_a_statistical_map_is_named_as_nilearn_and_fitlins_name_it():
    entities = {
        "stat": "r",
        "contrast": "vision",
        "space": "MNI152NLin2009cAsym",
        "task": "film",
        "subject": "01",
        "hemisphere": None,
    }
    assert bids_name(entities, "statmap", ".nii.gz") == (
        "sub-01_task-film_space-MNI152NLin2009cAsym_contrast-vision_stat-r"
        "_statmap.nii.gz"
    )


def test_hemisphere_stands_before_space_and_desc_is_last():
    entities = {"desc": "mean", "space": "fsaverage5", "hemi": "L", "stat": "r"}
    name = bids_name(entities, "statmap", ".func.gii")
    assert name == "hemi-L_space-fsaverage5_stat-r_desc-mean_statmap.func.gii"


@given(ENTITIES, st.randoms(use_true_random=False))
def test_the_order_in_which_entities_are_given_does_not_matter(
    entities: dict[str, str], rng: random.Random
):
    items = list(entities.items())
    rng.shuffle(items)
    assert bids_name(dict(items), "mask", ".json") == bids_name(
        entities, "mask", ".json"
    )


@given(ENTITIES)
def test_a_name_tells_its_entities(entities: dict[str, str]):
    assert parse_name(bids_name(entities, "scores", ".tsv")) == entities


def test_a_label_with_an_underscore_would_break_the_name():
    with pytest.raises(UsageError, match="label 'my_film' of entity 'task'"):
        bids_name({"subject": "01", "task": "my_film"}, "scores", ".tsv")


def test_an_unknown_entity_is_refused():
    with pytest.raises(UsageError, match="'flavour' is not an entity"):
        bids_name({"flavour": "sour"}, "scores", ".tsv")


@pytest.mark.parametrize(
    ("space", "label"),
    [("vision", "vision"), ("clip_L12", "clipL12"), ("word rate (Hz)", "wordRateHz")],
)
def test_a_feature_space_becomes_a_camel_case_label(space: str, label: str):
    assert contrast_label(space) == label


def test_a_feature_space_of_signs_alone_cannot_name_a_file():
    with pytest.raises(UsageError, match="needs letters or digits"):
        contrast_label("--")
