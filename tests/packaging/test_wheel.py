"""Source archive, wheel, clean environment: what users install is whole."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder,
        cwd=ROOT)  # fmt: skip
    (archive,) = folder.glob("neuromm-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the source archive, as an index would."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("neuromm-*/")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder,
        cwd=source)  # fmt: skip
    (path,) = folder.glob("neuromm-*.whl")
    return path


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory) -> Path:
    """Folder of programs of a new environment with the wheel.

    Dependencies are seen in the environment of the tests, by a path alone: its own
    editable neuromm is not, since only a site folder's .pth files are followed.
    """
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index",
        "--no-deps", wheel, cwd=folder)  # fmt: skip
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_the_two_packages_and_nothing_else(wheel):
    top = {name.split("/")[0] for name in names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "neuromm",
        "neuromm_pipelines",
    }
    assert not [name for name in names(wheel) if "test" in Path(name).name]
    assert "neuromm/py.typed" in names(wheel)


def test_folders_of_data_are_no_packages(wheel):
    shared = [name for name in names(wheel) if name.startswith("neuromm/_shared/")]
    assert any(name.endswith(".cu") for name in shared)
    assert any(name.endswith("labels.tsv") for name in shared)
    assert not [name for name in shared if name.endswith(".py")]


def test_every_tracked_file_of_the_packages_is_in_the_wheel(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "neuromm", "pipelines", "atlases", "cuda"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    homes = {"pipelines": "", "atlases": "neuromm/_shared/", "cuda": "neuromm/_shared/"}
    expected = set()
    for name in tracked.stdout.split("\n")[:-1]:
        if (ROOT / name).exists():
            top = name.split("/")[0]
            expected.add(homes.get(top, "") + name.removeprefix("pipelines/"))
    assert expected <= set(names(wheel))


def test_source_archive_holds_what_a_packager_needs(sdist):
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"LICENSE", "README.md", "Makefile", "constraints/py311.txt"}
    assert needed <= members
    assert any(name.startswith("tests/") for name in members)
    assert not [name for name in members if ".venv" in name or "__pycache__" in name]


def test_help_runs_in_a_clean_environment(clean, tmp_path):
    assert "encode" in run(clean / "neuromm", "--help", cwd=tmp_path)
    assert "--features" in run(clean / "neuromm", "encode", "--help", cwd=tmp_path)


def test_atlases_and_kernels_are_found_in_the_installed_package(clean, tmp_path):
    script = (
        "import neuromm\n"
        "from neuromm._resources import shared_folder\n"
        "from neuromm.atlas import atlases, load_atlas\n"
        "print(neuromm.__file__)\n"
        "print(shared_folder('atlases'))\n"
        "print(len(list(shared_folder('cuda').rglob('*.cu'))))\n"
        "print(len(atlases()))\n"
        "print(load_atlas('desikan_killiany'))\n"
    )
    output = run(clean / "python", "-c", script, cwd=tmp_path).splitlines()
    environment = str(clean.parent)
    assert output[0].startswith(environment)
    assert output[1].startswith(environment)
    assert int(output[2]) == len(list((ROOT / "cuda").rglob("*.cu")))
    assert int(output[3]) == len(list((ROOT / "atlases").glob("*/card.json")))


def test_doctor_finds_nothing_broken_in_a_clean_environment(clean, tmp_path):
    assert "neuromm can work here" in run(clean / "neuromm", "doctor", cwd=tmp_path)
