"""A killed fit loses no finished batch and ends with the bytes of an unharmed one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuromm.core import DataError, OutputError, ResourceLimitError, UsageError
from neuromm.encoding import fit_checkpoint
from neuromm.encoding.fit_checkpoint import FitCheckpoint, fit_settings
from neuromm.encoding.target_sources import target_source

N_FEATURES, N_TARGETS, WIDTH = 3, 10, 4
ARRAYS = {
    "coef": ((N_FEATURES, N_TARGETS), "f4"),
    "best_alphas": ((N_TARGETS,), "f8"),
    "scores": ((2, 5, N_TARGETS), "f8"),
}
SETTINGS = {"scoring": "r2", "alphas": [1.0, 10.0]}

# A fit in a process of its own that is killed at its n-th call of one function: of
# fsync between the writes of a batch, of the write of an array half-way in.
KILLED_FIT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, str(Path({tests!r})))
import test_fit_checkpoint as fit
from neuromm.encoding import batch_file
fsync, calls = os.fsync, 0

def killed_fsync(descriptor):
    global calls
    calls += 1
    if calls == {nth} and {where!r} == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
    if calls == {nth} and {where!r} == "after":
        os.kill(os.getpid(), signal.SIGKILL)

def half_write(self, columns, values):
    global calls
    calls += 1
    if calls == {nth}:
        part = values.copy()
        part[..., 1:] = -7
        write(self, columns, part)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, columns, values)

if {where!r} == "inside":
    write, batch_file.BatchFile.write = batch_file.BatchFile.write, half_write
else:
    os.fsync = killed_fsync
fit.run(Path({folder!r}))
"""


def results(columns):
    """What a fit would give: a function of the targets alone."""
    targets = np.arange(N_TARGETS, dtype=float)[columns]
    return {
        "coef": (np.arange(1.0, 4)[:, None] / (targets + 1)).astype("f4"),
        "best_alphas": 10.0**targets,
        "scores": np.sin(np.arange(10.0).reshape(2, 5, 1) + targets),
    }


def opened(folder, width=WIDTH, settings=SETTINGS):
    return FitCheckpoint(folder, settings, ARRAYS, N_TARGETS, width)


def run(folder, width=WIDTH):
    """Fit what is pending; the number of batches that were."""
    with opened(folder, width) as checkpoint:
        pending = checkpoint.pending()
        for columns in pending:
            checkpoint.store(columns, results(columns))
        return len(pending)


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "fit"
    assert run(folder) == 3
    return contents(folder)


def test_the_arrays_are_what_was_stored(tmp_path):
    run(tmp_path)
    checkpoint = opened(tmp_path)
    arrays = checkpoint.arrays()
    checkpoint.close()
    assert set(arrays) == set(ARRAYS)
    for name, expected in results(slice(None)).items():
        assert isinstance(arrays[name], np.memmap)
        assert not arrays[name].flags.writeable
        np.testing.assert_array_equal(arrays[name], expected, strict=True)


# A new folder takes 4 calls of fsync (manifest and three arrays) and each of the three
# batches 4 more; the write of an array is called 9 times.
@pytest.mark.parametrize(
    ("where", "nth"),
    [("before", n) for n in (1, 2, 4, 5, 7, 8, 9, 12, 14, 16)]
    + [("after", n) for n in (1, 4, 7, 8, 16)]
    + [("inside", n) for n in (1, 2, 5, 9)],
)
def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(
    where, nth, tmp_path, undisturbed
):
    folder = tmp_path / "fit"
    script = KILLED_FIT.format(
        tests=str(Path(__file__).parent), where=where, nth=nth, folder=str(folder)
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    # A batch whose manifest was renamed into place is not computed again.
    manifest = folder / "manifest.json"
    done = json.loads(manifest.read_text())["done"] if manifest.exists() else {}
    n_stored = (nth - 1) // 3 if where == "inside" else max((nth - 5) // 4, 0)
    assert len(done) == n_stored
    assert run(folder) == 3 - len(done)
    assert contents(folder) == undisturbed
    assert run(folder) == 0


def test_the_stored_width_wins(tmp_path, undisturbed):
    with opened(tmp_path) as checkpoint:
        checkpoint.store(slice(0, 4), results(slice(0, 4)))
    with opened(tmp_path, width=7) as checkpoint:
        assert checkpoint.width == WIDTH
        assert checkpoint.is_done(0)
        assert not checkpoint.is_done(4)
        assert checkpoint.pending() == [slice(4, 8), slice(8, 10)]
    assert run(tmp_path, width=1) == 2
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("name", ["coef", "best_alphas", "scores"])
def test_a_damaged_batch_is_computed_again(name, tmp_path, undisturbed):
    run(tmp_path)
    path = tmp_path / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the last target
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"targets 8 to 10 .*computed again"):
        assert run(tmp_path) == 1
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", ["missing", "cut", "other header"])
@pytest.mark.filterwarnings("ignore:targets .* computed again")
def test_a_lost_array_is_computed_again(damage, tmp_path, undisturbed):
    run(tmp_path)
    path = tmp_path / "coef.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_bytes(path.read_bytes().replace(b"True", b"None"))
    assert run(tmp_path) == 3
    assert contents(tmp_path) == undisturbed


def test_another_fit_in_the_folder_is_refused_with_what_differs(tmp_path):
    run(tmp_path)
    before = contents(tmp_path)
    other = {"scoring": "mse", "alphas": [1.0, 100.0], "seed": np.int64(3)}
    with pytest.raises(
        UsageError,
        match=r"alphas was \[1.0, 10.0\], now \[1.0, 100.0\]; scoring was 'r2', now "
        r"'mse'; seed was None, now 3.*another folder, or delete",
    ):
        opened(tmp_path, settings=other)
    fewer = {name: ARRAYS[name] for name in ("coef", "best_alphas")}
    with pytest.raises(UsageError, match=r"arrays\.scores was .*now None"):
        FitCheckpoint(tmp_path, SETTINGS, fewer, N_TARGETS, WIDTH)
    with pytest.raises(UsageError, match="n_targets was 10, now 5"):
        FitCheckpoint(tmp_path, SETTINGS, {"a": ((5,), "f8")}, 5, WIDTH)
    assert contents(tmp_path) == before
    assert run(tmp_path) == 0  # a refusal gives the folder free


def test_files_that_no_fit_has_written_are_left_alone(tmp_path):
    (tmp_path / "coef.npy").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"holds coef\.npy and no manifest"):
        opened(tmp_path)
    assert contents(tmp_path) == {"coef.npy": b"mine"}


def test_a_second_process_is_refused_while_the_first_lives(tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        "import test_fit_checkpoint as fit; from pathlib import Path; "
        f"kept = fit.opened(Path({str(tmp_path)!r})); print('open', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"open\n"
        with pytest.raises(ResourceLimitError, match=f"process {first.pid} on "):
            opened(tmp_path)
        first.kill()
    assert run(tmp_path) == 3


def test_results_are_read_when_all_are_there(tmp_path):
    with opened(tmp_path) as checkpoint:
        checkpoint.store(slice(0, 4), results(slice(0, 4)))
        with pytest.raises(UsageError, match=r"2 batches .*from target 4 on"):
            checkpoint.arrays()


@pytest.mark.parametrize(
    ("columns", "change", "told"),
    [
        (slice(0, 5), {}, "a batch is slice"),
        (slice(2, 6), {}, "multiple of 4"),
        (slice(12, 16), {}, "below 10"),
        (
            slice(0, 4),
            {"coef": np.zeros((3, 4))},
            "coef .*float32, got .*float64",
        ),
        (slice(0, 4), {"coef": np.zeros((3, 5), "f4")}, r"coef .*\(3, 4\).*\(3, 5\)"),
        (slice(0, 4), {"more": np.zeros(4)}, "has the arrays"),
    ],
)
def test_what_is_no_batch_is_refused(columns, change, told, tmp_path):
    with opened(tmp_path) as checkpoint:
        with pytest.raises(UsageError, match=told):
            checkpoint.store(columns, results(columns) | change)
        assert checkpoint.pending()[0] == slice(0, 4)


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch, undisturbed):
    with opened(tmp_path) as checkpoint:
        checkpoint.store(slice(0, 4), results(slice(0, 4)))

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("neuromm.encoding.batch_file.BatchFile.write", full)
            with pytest.raises(OutputError, match="No space left"):
                checkpoint.store(slice(4, 8), results(slice(4, 8)))
        assert checkpoint.pending()[0] == slice(4, 8)
    assert run(tmp_path) == 2
    assert contents(tmp_path) == undisturbed


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    small = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(fit_checkpoint.shutil, "disk_usage", lambda folder: small)
    with pytest.raises(OutputError, match="larger disk"):
        opened(tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 1, "done": {"a": ""}}'])
def test_a_damaged_manifest_is_named(text, tmp_path):
    run(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: .*Delete the folder"):
        opened(tmp_path)


def test_settings_are_plain(tmp_path):
    with pytest.raises(UsageError, match="settings must be"):
        opened(tmp_path, settings={"alpha": float("nan")})
    with pytest.raises(UsageError, match="settings must be"):
        opened(tmp_path, settings={"cv": object()})


def test_fits_on_other_features_folds_alphas_or_targets_differ():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 4)), rng.standard_normal((12, 30))
    alphas = np.geomspace(1, 100, 5)
    rows = np.arange(12)
    splits = [(rows[4:], rows[:4]), (rows[:8], rows[8:])]

    def settings(x=x, alphas=alphas, splits=splits, y=y):
        return fit_settings(x, alphas, splits, target_source(y))

    same = settings()
    assert json.loads(json.dumps(same)) == same
    masks = [tuple(np.isin(rows, part) for part in split) for split in splits]
    assert settings(x.copy(order="F"), splits=masks) == same
    nearly = np.nextafter(x, 9)
    purged = [(rows[5:], rows[:4]), splits[1]]
    for part, other in [
        ("features", settings(x=np.where(x == x[7, 2], nearly, x))),
        ("features", settings(x=x.astype("f4"))),
        ("alphas", settings(alphas=np.nextafter(alphas, 0))),
        ("alphas", settings(alphas=alphas[::-1])),
        ("folds", settings(splits=purged)),
        ("folds", settings(splits=splits[::-1])),
        ("targets", settings(y=y[:, ::-1])),
    ]:
        assert {name for name in same if same[name] != other[name]} == {part}
