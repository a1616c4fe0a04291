"""Flags, exit codes and start-up are those that users of BIDS apps know."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from neuromm.core import DataError, OutputError, UsageError
from neuromm_pipelines import cli
from neuromm_pipelines.command_line import add_flag, guarded, named_paths
from neuromm_pipelines.encode import build_parser

HEAVY = ("torch", "cupy", "mne", "nilearn", "nibabel", "scanpy", "monai", "pandas")


@pytest.mark.parametrize("argv", [["--help"], ["encode", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(argv):
    script = (
        "import sys\nfrom neuromm_pipelines.cli import main\n"
        f"try:\n    main({argv!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_help_says_what_neuromm_must_not_be_used_for(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["encode", "--help"])
    assert ended.value.code == 0
    assert "not a medical device" in capsys.readouterr().out


def test_an_unknown_command_is_a_usage_error_that_lists_the_known(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["encoed"])
    assert ended.value.code == 2
    assert "encode" in capsys.readouterr().err


def test_one_flag_takes_many_labels_in_both_spellings():
    parse = build_parser().parse_args
    head = ["in", "out", "participant"]
    dashed = parse([*head, "--participant-label", "01", "sub-02"])
    scored = parse([*head, "--participant_label", "01", "sub-02"])
    assert dashed.participant_label == scored.participant_label == ["01", "sub-02"]


@pytest.mark.parametrize(
    "flag",
    [
        "--participant-label", "--session-label", "--task", "--task-id", "-t",
        "--space",
        "--run-label", "--bids-filter-file", "-d", "--derivatives", "--nprocs",
        "--n-cpus", "--nthreads", "--omp-nthreads", "--mem", "--mem-mb", "--low-mem",
        "--skip-bids-validation", "--reports-only", "--boilerplate-only",
        "--md-only-boilerplate", "--config-file", "--random-seed", "--sloppy",
        "--stop-on-first-crash", "-v", "--version", "--notrack", "--device",
        "--features", "--dry-run", "--resume", "--no-resume", "--overwrite", "-w",
        "--work-dir", "--clean-workdir", "--resource-monitor", "--debug",
        "--bids-database-dir", "--backend", "--chunks", "--targets-chunk",
        "--executor", "--scheduler",
    ],
)  # fmt: skip
def test_flags_of_bids_apps_are_known(flag):
    known = {s for action in build_parser()._actions for s in action.option_strings}
    assert flag in known


def test_every_long_flag_has_its_underscore_alias_and_help_hides_it():
    parser = build_parser()
    for action in parser._actions:
        for name in action.option_strings:
            if name.startswith("--") and "-" in name[2:]:
                assert f"--{name[2:].replace('-', '_')}" in action.option_strings
    assert "participant_label" not in parser.format_help()


def test_named_paths_refuse_a_name_given_twice():
    assert named_paths("--features", ["vision=a.tsv", "b/language.tsv.gz"]) == {
        "vision": Path("a.tsv"),
        "language": Path("b/language.tsv.gz"),
    }
    with pytest.raises(UsageError, match="names 'vision' twice"):
        named_paths("--features", ["vision=a.tsv", "x/vision.npz"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("u"), 2),
        (DataError("d", "bold.nii"), 65),
        (OutputError("o"), 73),
        (KeyboardInterrupt(), 130),
        (RuntimeError("bug"), 70),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_one_message(capsys, error, code):
    def fail(argv):
        raise error

    assert guarded("neuromm encode", fail, []) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("neuromm encode: ")
    assert str(error) in last


def test_sigterm_ends_with_the_code_that_a_scheduler_may_retry():
    script = (
        "import os, signal, sys\n"
        "from neuromm_pipelines.command_line import guarded\n"
        "def work(argv):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "    except Exception:\n        return 0\n"
        "sys.exit(guarded('neuromm encode', work, []))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 75
    assert "run again to go on" in done.stderr


def test_a_flag_without_dashes_gets_no_alias():
    parser = argparse.ArgumentParser()
    add_flag(parser, "--task", help="tasks")
    assert parser._actions[-1].option_strings == ["--task"]
