"""``--both-alignments``: what it cannot join is said before anything is written."""

import pytest

from neuromm.core import InputMissingError, UsageError
from neuromm.report.both_alignments import read_alignments


def test_it_is_of_the_group_level(neuromm, tiny_bold, tmp_path):
    ran = neuromm("encode", tiny_bold.root, tmp_path / "out", "participant",
                  "--features", f"faces={tiny_bold.features}",
                  "--both-alignments", tmp_path / "other")  # fmt: skip
    assert ran.code == 2
    assert "give it at the group level" in ran.err


def test_a_folder_is_no_other_alignment_of_itself(tmp_path):
    with pytest.raises(UsageError, match="this output itself"):
        read_alignments(tmp_path, tmp_path / ".")
    with pytest.raises(UsageError, match="tell them apart"):
        read_alignments(tmp_path / "a" / "out", tmp_path / "b" / "out")


def test_an_output_without_sites_is_named(tmp_path):
    (tmp_path / "scenes").mkdir()
    with pytest.raises(InputMissingError, match="scenes"):
        read_alignments(tmp_path / "words", tmp_path / "scenes")
