"""The guide to clusters says what the commands do."""

import re
import shlex
from pathlib import Path

import pytest

from neuromm_pipelines import encode, merge

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "cluster.md").read_text()
LINES = re.findall(
    r"^(?:\$ )?neuromm (encode|merge) (?!.*error)(.*)$",
    GUIDE.replace("\\\n", " "),
    flags=re.MULTILINE,
)


@pytest.mark.parametrize(("command", "words"), LINES)
def test_every_command_line_of_the_guide_is_understood(command, words):
    parser = {"encode": encode, "merge": merge}[command].build_parser()
    parsed = parser.parse_args(shlex.split(words))
    assert parsed.output_dir == Path("OUTPUT_DIR")


def test_the_guide_shows_the_three_ways():
    assert [command for command, _ in LINES] == ["encode", "merge", "encode"]
    assert "--chunks N --nprocs" in GUIDE


def test_missing_chunks_are_listed_in_the_form_of_job_arrays():
    from neuromm_pipelines.chunks import as_ranges

    listed = as_ranges([7, 40, 41])
    assert f"3 of 100 chunks are missing: {listed}." in GUIDE
