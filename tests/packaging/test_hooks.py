"""Hooks before a commit are the checks of CI."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_hooks_run_the_commands_of_make_check():
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    checks = [
        line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.split("\n")
    ]
    hooks = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == [check for check in checks if check]


def test_ci_runs_make_test_before_all_else():
    steps = re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.M)
    assert steps == ["test", "check", "test-kernels", "test-slow", "docs"]
