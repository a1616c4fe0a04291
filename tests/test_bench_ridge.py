"""The ridge benchmark counts, compares and fails as it says."""

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("bench_folder")
SMALL = ["--shapes", "120,12,60"]
PEERS = ["himalaya-ridge-numpy", "scikit-learn"]


def fitted(n_targets=50, **changes):
    from ridge_bench.estimators import Fitted

    rng = np.random.default_rng(0)
    values = {
        "best_alphas": rng.choice([1.0, 10.0, 100.0], n_targets),
        "cv_scores": rng.uniform(0, 1, n_targets),
        "coef": rng.standard_normal((4, n_targets)),
    }
    return Fitted(**{**values, **changes})


def test_a_run_times_every_estimator_and_keeps_what_it_found(tmp_path, capsys):
    import ridge

    path = tmp_path / "results.json"
    ridge.main([*SMALL, "--peers", *PEERS, "--json", str(path)])
    (case,) = json.loads(path.read_text())["cases"]
    ours, peers = case["ours"], case["peers"]
    assert [row["estimator"] for row in peers] == [
        "himalaya RidgeCV, numpy",
        "scikit-learn Ridge in a loop",
    ]
    for row in [ours, *peers]:
        assert row["wall_s"] > 0
        assert row["cpu_s"] > 0
    assert ours["solver_form"].startswith("primal")
    assert ours["products"] > ours["target_products"] > 0
    assert peers[0]["same_alphas"] >= 0.99
    assert peers[1]["n_targets"] != [60]
    assert "scaled from" in capsys.readouterr().out


def test_a_run_takes_the_place_of_the_last_one_of_its_kind(tmp_path):
    from ridge_bench.tables import merged

    job = {"n_samples": 10, "n_features": 3, "n_targets": 2}
    one = {"job": job, "threads": 1, "device": "cpu", "mark": "old"}
    two = {**one, "threads": 2}
    again = {**one, "mark": "new"}
    assert merged([one, two], [again]) == [again, two]


@pytest.mark.parametrize(
    ("name", "spoil", "complaint"),
    [
        ("best_alphas", lambda alphas: np.roll(alphas, 7), "alphas are the same"),
        ("cv_scores", lambda scores: scores + 1e-2, "scores differ"),
        ("coef", lambda coef: coef * 1.1, "weights differ"),
    ],
)
def test_a_wrong_peer_fails_the_run(tmp_path, monkeypatch, name, spoil, complaint):
    import ridge
    from ridge_bench.measure import measure

    def spoiled(spec, folder):
        result = measure({**spec, "folder": str(folder)})
        if spec["estimator"] != "neuromm":
            path = Path(folder, f"{spec['estimator']}.{name}.npy")
            np.save(path, spoil(np.load(path)))
        return result

    monkeypatch.setattr(ridge, "in_new_process", spoiled)
    with pytest.raises(SystemExit, match=complaint):
        ridge.main([*SMALL, "--peers", "himalaya-ridge-numpy"])


def test_equal_results_agree_and_some_of_the_targets_are_compared_with_their_own():
    from ridge_bench.agreement import agreement, complaint
    from ridge_bench.estimators import Fitted
    from ridge_bench.jobs import spread_columns

    whole = fitted()
    columns = spread_columns(50, 7)
    part = Fitted(
        whole.best_alphas[columns], whole.cv_scores[columns], whole.coef[:, columns]
    )
    compared = agreement(whole, part)
    assert compared["n_compared"] == 7
    assert complaint(compared) is None


def test_a_peer_of_nan_does_not_agree():
    from ridge_bench.agreement import agreement, complaint

    whole = fitted()
    broken = fitted(cv_scores=np.full(50, np.nan), coef=np.full((4, 50), np.nan))
    assert "scores" in complaint(agreement(whole, broken))
    assert "weights" in complaint(agreement(whole, broken))


def test_time_of_all_targets_lies_on_the_line_of_two_runs():
    from ridge_bench.measure import scaled

    runs = [
        {"wall_s": 3.0 + 0.01 * size, "cpu_s": 2.0 + 0.02 * size, "peak_bytes": None}
        for size in (100, 300)
    ]
    line = scaled(runs, [100, 300], 5000)
    assert line["wall_s"] == pytest.approx(53.0)
    assert line["cpu_s"] == pytest.approx(102.0)
    assert line["peak_bytes"] is None


def test_a_peer_that_would_take_too_long_runs_on_two_smaller_numbers_of_targets():
    from ridge_bench.estimators import ESTIMATORS
    from ridge_bench.jobs import Job
    from ridge_bench.measure import sizes_to_run

    job, peer = Job(3000, 1000, 20_000), ESTIMATORS["himalaya-ridge-torch"]
    assert sizes_to_run(peer, job, predicted=90, longest=300) == [20_000]
    small, large = sizes_to_run(peer, job, predicted=900, longest=300)
    assert small < large <= 20_000 * 300 / 900


def test_the_memory_of_a_process_is_that_of_its_peak():
    from ridge_bench.measure import memory_before, status_bytes

    before = memory_before()
    if before is None:
        pytest.skip("/proc/self/clear_refs: cannot be written here")
    # Above 32 MB no freed memory is taken again, which would raise no peak.
    block = np.ones(8_000_000)
    del block
    assert status_bytes("VmHWM") - before == pytest.approx(64e6, rel=0.1)


@pytest.mark.parametrize(
    ("estimator", "shape", "expected"),
    [
        # Table of operations that the engine was designed by.
        ("RidgeCV", (3000, 1000, 5000), 3.1e12),
        ("RidgeCV", (3000, 1000, 50_000), 2.15e13),
        ("KernelRidgeCV", (3000, 1000, 50_000), 3.5e13),
        ("KernelRidgeCV", (3000, 5000, 5000), 6.0e12),
        ("RidgeCV", (3000, 5000, 50_000), 5.7e13),
        ("KernelRidgeCV", (3600, 6820, 84_000), 8.3e13),
    ],
)
def test_operations_of_himalaya_are_counted(estimator, shape, expected):
    from ridge_bench.jobs import Job, himalaya_count

    # Leading terms on both sides.
    assert himalaya_count(estimator, Job(*shape)) == pytest.approx(expected, rel=0.15)


def test_the_data_make_targets_choose_many_penalties():
    from ridge_bench.jobs import Job, alpha_grid, make_data

    from neuromm.encoding import RidgeCV

    x, y = make_data(Job(300, 30, 200))
    assert x.dtype == y.dtype == np.float32
    best = RidgeCV(alphas=alpha_grid(20)).fit(x, y).best_alphas_
    assert len(np.unique(best)) >= 8


def test_a_gpu_that_is_not_there_is_an_error_and_its_plan_is_none(capsys):
    import ridge
    import torch

    ridge.main(["--device", "cuda", "--dry-run"])
    planned = capsys.readouterr().out
    assert "10000 x 768 x 200000" in planned
    assert "himalaya RidgeCV, torch_cuda" in planned
    assert "null of permuted blocks" in planned
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
            ridge.main(["--device", "cuda"])


@pytest.mark.parametrize("word", ["12,x", "1,2", "0,1,1", "tiny"])
def test_a_shape_that_is_none_is_an_error(word):
    import ridge

    with pytest.raises(SystemExit, match="a shape is short, full, or"):
        ridge.main(["--shapes", word])


def test_the_table_of_the_documentation_is_the_only_thing_that_is_written(tmp_path):
    import ridge
    from ridge_bench.tables import BEGIN, END, write_docs

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nthe last one\n{END}\nafter\n")
    case = {
        "job": {"n_samples": 3000, "n_features": 1000, "n_targets": 20_000},
        "threads": 1,
        "device": "cpu",
        "machine": {"cpu": "C", "cores": 2, "versions": {"numpy": "2"}, "commit": "a"},
        "ours": {
            "wall_s": 2.0, "cpu_s": 2.0, "peak_bytes": 10**8, "set_up_wall_s": 1.0,
            "set_up_cpu_s": 1.0,
            "solver_form": "primal-divided-difference", "planned_s": 1.9,
            "planned_bytes": 10**8, "many_alphas_s": 2.5, "products": 1e11,
            "target_products": 5e10, "sgemm_per_s": {"numpy": 1e11},
            "n_targets": [20_000],
        },
        "peers": [
            {
                "estimator": "himalaya RidgeCV, torch", "wall_s": 18.0, "cpu_s": 18.0,
                "peak_bytes": 3 * 10**8, "n_targets": [1000, 3000],
                "same_alphas": 1.0, "score_difference": 1e-6, "coef_difference": 1e-5,
            }
        ],
    }  # fmt: skip
    write_docs(page, [case])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "the last one" not in text
    assert "**9.0**" in text
    assert "scaled from 1000 and 3000 targets" in text
    assert "| 50% | 50% |" in text
    case["ours"]["wall_s"] = 4.0  # of 2 CPU seconds
    write_docs(page, [case])
    assert "machine was busy" in page.read_text()
    assert "**" not in page.read_text()
    page.write_text("no place for it")
    with pytest.raises(SystemExit, match="has no lines"):
        write_docs(page, [case])
    assert BEGIN in ridge.DOCS_PAGE.read_text()
