"""What one slice of one subject can show about integration: nothing, and why.

Eight categories, each with a word (hashed letters) and a code of its pictures (SPoSE:
what people see as alike in photographs of objects). Any code of eight categories spans
the same few dimensions, so a "multimodal" one cannot add what the others lack, unless
something else differs between them. Both are shown here.
"""

import gzip

import numpy as np
import pandas as pd
import pytest

from neuromm.features import load_backbone
from neuromm_pipelines.cli import main

pytestmark = [pytest.mark.real, pytest.mark.slow]

WORDS = [
    "bottle", "cat", "chair", "face", "house", "scissors", "scrambled picture", "shoe",
]  # fmt: skip
CATEGORIES = [*WORDS[:6], "scrambledpix", "shoe"]
# THINGS has no house, and of a scrambled picture nothing is to be seen.
PICTURED = {"house": "dollhouse"}


def of_equal_size(code):
    """Code about its mean, of the same size whatever its number of columns."""
    code = code - code.mean(axis=0)
    return code / np.linalg.norm(code) * len(code) ** 0.5


def with_presence(code):
    """Code and a column of ones: any category is on the screen, or none."""
    return np.column_stack([code, np.ones(len(code))])


@pytest.fixture(scope="module")
def codes(data_folder):
    """Vision, language, and both with products of their columns."""
    things = data_folder / "stimuli_features" / "things"
    names = (things / "unique_id.txt").read_text().split()
    with gzip.open(things / "spose_embedding_49d_sorted.txt.gz", "rt") as file:
        spose = np.loadtxt(file)
    vision = np.zeros((8, spose.shape[1]))
    for row, name in enumerate(WORDS):
        if name != "scrambled picture":
            vision[row] = spose[names.index(PICTURED.get(name, name))]
    vision = of_equal_size(vision)
    language = of_equal_size(np.asarray(load_backbone("hashed-text").embed(WORDS)))
    pairs = (vision[:, :, None] * language[:, None, :]).reshape(8, -1)
    rng = np.random.default_rng(0)
    products = of_equal_size(pairs @ rng.standard_normal((pairs.shape[1], 64)))
    joint = of_equal_size(np.concatenate([vision, language, products], axis=1))
    return {"vision": vision, "language": language, "joint": joint}


def sites(haxby, name, codes):
    """Table of sites from the command, leaving one run out."""
    features = []
    for space, code in codes.items():
        table = pd.DataFrame(code).add_prefix(space)
        table.insert(0, "trial_type", CATEGORIES)
        table.to_csv(haxby / f"{name}_{space}.tsv", sep="\t", index=False)
        features.append(f"{space}={haxby / f'{name}_{space}.tsv'}")
    output = haxby / f"sites_{name}"
    code = main(
        [
            "encode", str(haxby / "dataset"), str(output), "participant",
            "--features", *features, "--sites", "--mask", str(haxby / "mask.nii.gz"),
            "--n-permutations", "0", "--n-resamples", "500", "--skip-bids-validation",
            "--omp-nthreads", "1",
        ]
    )  # fmt: skip
    assert code == 0
    (path,) = output.rglob("*_desc-multimodalsites_scores.tsv")
    return pd.read_csv(path, sep="\t", na_values="n/a")


@pytest.fixture(scope="module")
def fair(haxby, codes):
    return sites(haxby, "fair", {one: with_presence(codes[one]) for one in codes})


def test_either_code_predicts_held_out_runs_and_both_find_the_same_voxels(fair):
    assert np.corrcoef(fair.score_vision, fair.score_language)[0, 1] > 0.95
    # By chance 5 % of the voxels would.
    assert (fair.p_chance < 0.05).mean() > 0.25


def test_no_voxel_of_this_slice_is_a_site(fair):
    assert len(fair) == 530
    assert not fair.is_site.any()


def test_a_code_that_alone_tells_stimulus_from_rest_makes_sites_of_nothing(
    haxby, codes
):
    unequal = {**codes, "joint": with_presence(codes["joint"])}
    found = sites(haxby, "unequal", unequal)
    # Not integration: the unimodal codes were robbed of what all pictures share.
    assert found.is_site.sum() > 50
