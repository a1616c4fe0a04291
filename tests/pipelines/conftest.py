"""Two subjects, the arguments that encode them, and the bytes of an output folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def two_subjects(tiny_bold) -> Any:
    copy = tiny_bold.root / "sub-02"
    shutil.copytree(tiny_bold.root / "sub-01", copy)
    for path in sorted(copy.rglob("sub-01*")):
        path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    return tiny_bold


@pytest.fixture
def arguments() -> Callable[..., list[str]]:
    """The words of ``neuromm encode``, one BLAS thread a task."""

    def words(data: Any, output: Path, *options: object) -> list[str]:
        return [
            "encode", str(data.root), str(output), "participant",
            "--features", f"kind={data.features}", "--mask", str(data.mask),
            "--n-permutations", "20", "--skip-bids-validation",
            "--omp-nthreads", "1", *map(str, options),
        ]  # fmt: skip

    return words


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Every file but the logs and locks, which differ from run to run."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and not path.is_relative_to(folder / ".neuromm" / "locks")
            and not (path.parent.name == "logs" and path.name.startswith("run_"))
        }

    return read
