from types import SimpleNamespace

import pytest

from neuromm.report import methods_text
from neuromm.report.methods import methods_paragraphs, methods_references

DESIGNS = [
    ("func", {"space": "MNI152NLin2009cAsym"}),
    ("func", {"space": "fsaverage5", "hrf": "glover", "n_permutations": 0}),
    ("func", {"hrf": "fir", "pipeline": None}),
    ("eeg", {}),
    ("meg", {"n_permutations": 0}),
    ("ieeg", {"reference": "bipolar"}),
    ("ieeg", {"reference": "none"}),
]


@pytest.fixture(params=DESIGNS, ids=lambda case: f"{case[0]}-{len(case[1])}")
def design(request: pytest.FixtureRequest, builders: SimpleNamespace) -> dict:
    datatype, changes = request.param
    known = builders.FMRI_DESIGN if datatype == "func" else builders.EPOCH_DESIGN
    return {**known, "datatype": datatype, "n_folds": 4, **changes}


def test_what_is_listed_is_cited_and_what_is_cited_is_listed(design: dict):
    text = " ".join(methods_paragraphs(design))
    references = methods_references(design)
    for reference in references:
        author, year = reference.split()[0], reference.split("(")[1][:4]
        assert author in text
        assert year in text
    assert text.count(" et al., ") + text.count(" and Kennard") <= len(references)


def test_numbers_come_from_the_design(builders: SimpleNamespace):
    changed = {
        "datatype": "func", "n_samples": 1234, "t_r_s": 0.72,
        "cv": "leave one run out, 7 folds",
        "n_permutations": 4321, "block": 17, "alphas": [0.5, 3.0, 80.0],
        "trim_volumes": [6, 9], "runs": list("abcde"), "high_pass_hz": 0.02,
    }  # fmt: skip
    text = methods_text({**builders.FMRI_DESIGN, **changed})
    for number in (
        "1234 samples in 5 runs", "(leave one run out, 7 folds)", "4321 permutations",
        "repetition time 0.72 s", "in blocks of 17 samples", "3 values from 0.5 to 80",
        "first 6 and the last 9", "below 0.02 Hz", "512 features",
    ):  # fmt: skip
        assert number in text


def test_a_text_without_permutations_admits_that_chance_is_unknown(
    builders: SimpleNamespace,
):
    text = methods_text({**builders.EPOCH_DESIGN, "n_permutations": 0})
    assert "No permutation test was run" in text
    assert "Benjamini" not in text


def test_software_that_was_not_used_is_not_cited(builders: SimpleNamespace):
    text = methods_text({**builders.FMRI_DESIGN, "datatype": "func"})
    assert "MNE" not in text
    assert "himalaya" not in text
    assert "nilearn" in text


def test_an_empty_design_gives_a_text_without_holes():
    text = methods_text({})
    assert "None" not in text
    assert "Hoerl and Kennard, 1970" in text
