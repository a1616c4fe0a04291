"""Files appear whole or not at all."""

import errno
import subprocess
import sys

import pytest

from neuromm.core import DataError, OutputError
from neuromm.core.files import (
    atomic_path,
    file_digest,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)


def test_temporary_name_keeps_every_suffix_of_the_target(tmp_path):
    with atomic_path(tmp_path / "sub-01_stat-r_statmap.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["sub-01_stat-r_statmap.nii.gz"]


def test_a_writer_that_dies_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    target = write_text(tmp_path / "table.tsv", "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [
        ("table.tsv", "old")
    ]


def test_full_disk_is_reported_as_output_error_with_the_path(tmp_path):
    with (
        pytest.raises(OutputError, match=r"map\.nii.*Is the disk full") as caught,
        atomic_path(tmp_path / "map.nii"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 73
    assert list(tmp_path.iterdir()) == []


def test_a_missing_input_inside_the_block_is_not_blamed_on_the_output(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="absent") as caught,
        atomic_path(tmp_path / "map.nii"),
    ):
        (tmp_path / "elsewhere" / "absent").read_text()
    assert not isinstance(caught.value, OutputError)


def test_leftovers_of_a_killed_writer_are_removed_and_those_of_a_live_one_kept(
    tmp_path,
):
    script = (
        "import os, sys; from neuromm.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t: t.write_text('half'); os._exit(9)"
    )
    finished = write_text(tmp_path / "sub-01" / "a.tsv", "x")
    killed = tmp_path / "sub-01" / "b.tsv"
    subprocess.run([sys.executable, "-c", script, killed], check=False)
    (leftover,) = tmp_path.rglob("b.tmp-*")
    with atomic_path(tmp_path / "c.tsv") as at_work:
        at_work.write_text("half")
        assert remove_leftovers(tmp_path) == [leftover]
    assert sorted(p.name for p in tmp_path.rglob("*.tsv")) == ["a.tsv", "c.tsv"]
    assert finished.read_text() == "x"


def test_json_round_trips_and_refuses_nan(tmp_path):
    content = {"b": 1, "a": ["µV", None]}
    assert read_json(write_json(tmp_path / "x.json", content)) == content
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert not (tmp_path / "y.json").exists()


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_bad_json_names_the_file(tmp_path, text):
    path = tmp_path / "side.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"side\.json"):
        read_json(path)


def test_digest_is_that_of_sha256sum(tmp_path):
    # FIPS 180-2, appendix B.1
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
