"""The container is built by the steps that are tested."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def steps() -> list[list[str]]:
    """Instructions of the Dockerfile: name, then the rest of the line."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [line.split(maxsplit=1) for line in lines if re.match(r"[A-Z]+ ", line)]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def makefile_commands() -> list[str]:
    """Commands of the Makefile that install, variables replaced."""
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+) :?\??= (.*)$", text, flags=re.MULTILINE))
    commands = re.findall(r"^\t(.*)$", text, flags=re.MULTILINE)
    for _ in range(4):  # variables name variables
        for name, value in variables.items():
            commands = [line.replace(f"$({name})", value) for line in commands]
    return commands


def instructions(steps, name: str) -> list[str]:
    return [rest for step, rest in steps if step == name]


def test_the_image_installs_as_the_makefile_does(steps):
    tested = makefile_commands()
    for command in instructions(steps, "RUN"):
        # A checkout is installed editable, an image whole; all else is the same.
        in_checkout = re.sub(r" \.$", " -e .", f".venv/bin/{command}")
        assert in_checkout in tested


def test_the_image_installs_pip_and_then_the_constrained_package(steps):
    upgrade, install = instructions(steps, "RUN")
    assert "--upgrade" in upgrade
    assert install.endswith("-c constraints/py311.txt .")


def test_python_is_that_of_the_constraints(steps, project):
    (image,) = instructions(steps, "FROM")
    assert image == "python:3.11-slim"
    assert project["project"]["requires-python"] == ">=3.11"


def test_all_that_the_wheel_is_built_from_is_copied(steps, project):
    copied = {
        path for rest in instructions(steps, "COPY") for path in rest.split()[:-1]
    }
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {path.split("/")[0] for path in wheel["packages"]}
    needed |= set(wheel["force-include"]) | set(project["project"]["license-files"])
    needed |= {project["project"]["readme"], "pyproject.toml", "constraints"}
    assert copied == needed
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert allowed == needed


def test_the_entry_point_is_the_console_script(steps, project):
    (entry,) = instructions(steps, "ENTRYPOINT")
    assert json.loads(entry) == list(project["project"]["scripts"])
