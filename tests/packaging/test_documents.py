"""What the documents say is what the package does."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from neuromm_pipelines.encode import build_parser

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("core", "io", "io.bids", "features", "prepare", "atlas", "encoding", "report",
         "simulate")  # fmt: skip
README = (ROOT / "README.md").read_text()


def flags() -> set[str]:
    """Flags that the help shows, without underscore aliases."""
    return {
        spelling
        for action in build_parser()._actions
        for spelling in action.option_strings
        if "_" not in spelling
    }


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return re.findall(r"^ *\$ neuromm encode (.*)$", joined, flags=re.MULTILINE)


def test_the_guide_names_every_flag_and_no_other():
    guide = (ROOT / "docs" / "encode.md").read_text()
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", guide))
    undocumented = flags() - named - {"-h", "--help", "--version"}
    assert not undocumented
    long_options = {name for name in named if name.startswith("--") and "_" not in name}
    assert not long_options - flags()


@pytest.mark.parametrize(
    "path", ["README.md", "docs/index.md", "docs/encode.md", "docs/features.md"]
)
def test_every_command_line_in_the_documents_is_understood(path):
    found = commands((ROOT / path).read_text())
    assert found
    for line in found:
        parsed = build_parser().parse_args(shlex.split(line, comments=True))
        assert parsed.analysis_level in {"participant", "group"}


def test_the_guide_lists_the_exit_codes_that_help_lists():
    guide = (ROOT / "docs" / "encode.md").read_text()
    listed = set(re.findall(r"^\| (\d+) \|", guide, flags=re.MULTILINE))
    (epilog,) = re.findall(r"exit codes: (.*)", build_parser().format_help(), re.S)
    assert listed == set(re.findall(r"\b(\d+)\b", epilog))


def test_scripts_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in ("vision", "language", "both", "none"))


def test_the_feature_file_of_the_readme_is_a_feature_table(tmp_path, monkeypatch):
    from neuromm.features import read_features

    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    exec(compile(block, "README.md", "exec"), {})
    table = read_features(tmp_path / "vision.npz")
    assert table.key == "stim_file"
    assert table.values.shape == (3, 512)


def test_files_that_the_readme_links_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_and_the_help_say_what_neuromm_must_not_be_used_for():
    notice = "Research use only: not a medical device, not for diagnosis or treatment."
    assert notice in README
    assert notice in build_parser().format_help()


@pytest.mark.parametrize("part", PARTS)
def test_the_reference_lists_every_public_name(part):
    reference = (ROOT / "docs" / "api.md").read_text()
    section = reference.partition(f".. currentmodule:: neuromm.{part}\n")[2]
    section = section.partition(".. currentmodule::")[0]
    listed = set(re.findall(r"^   (\w+)$", section, flags=re.MULTILINE))
    assert listed == set(importlib.import_module(f"neuromm.{part}").__all__)
