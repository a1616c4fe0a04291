"""A study is lazy and says what it holds."""

import pandas as pd
import pytest

from neuromm.core import InputMissingError, Sample, Study


@pytest.fixture
def study():
    table = pd.DataFrame(
        {
            "subject": ["01", "01", "02"],
            "session": [None, None, "a"],
            "task": ["film", "rest", "film"],
        }
    )
    opened = []

    def loader(row):
        opened.append(row["subject"])
        return Sample(data=None, modality="fmri", entities={"subject": row["subject"]})

    return Study(table, loader), opened


def test_nothing_is_read_before_it_is_asked_for(study):
    study, opened = study
    films = study.select({"task": "film"})
    assert len(films) == 2
    assert opened == []
    assert [s.entities["subject"] for s in films] == ["01", "02"]
    assert opened == ["01", "02"]


def test_none_selects_the_recordings_without_the_entity(study):
    assert len(study[0].select({"session": None})) == 2


def test_an_empty_selection_lists_what_there_is(study):
    with pytest.raises(InputMissingError, match=r"task=movie \(found: film, rest\)"):
        study[0].select({"task": "movie"})
