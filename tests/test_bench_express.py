"""The expression benchmark plants what it says, and its tables add up."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("bench_folder")


def results():
    def of(pcc, found):
        return {"pcc": pcc, "retrieval": found}

    jobs = {
        f"planted:{seed}": {
            "ridge": {"pcc": 0.30 + seed}, "ridge around": {"pcc": 0.45 + seed},
            "target": of(0.40 + seed, 0.1), "neighbor": of(0.50 + seed, 0.1),
            "global": of(0.70 + seed, 0.1), "contrastive": of(0.69 + 2 * seed, 0.9),
        }
        for seed in (0, 1)
    }  # fmt: skip
    jobs["shuffled:0"] = {
        "expression": -0.02, "coordinates": 0.41, "target": 0.42, "n_spots": 400,
    }  # fmt: skip
    machine = {"python": "3", "threads": 1, "neuromm": "0", "torch": "2"}
    return {"jobs": jobs, "machine": machine}


def test_a_row_says_what_it_gains_over_the_one_above():
    from express_bench import tables

    text = tables.made(results())
    assert "| + neighbour | 1.000 | +0.100 ± 0.000 | 0.10 |" in text
    assert "| + global | 1.200 | +0.200 ± 0.000 | 0.10 |" in text
    # Gains of -0.01 and 0.99: a mean of 0.49, a standard error of a half.
    assert "| + contrastive losses | 1.690 | +0.490 ± 0.500 | 0.90 |" in text
    assert "| ridge regression of the patch | 0.800 |  |  |" in text
    assert "| target | 0.900 |  | 0.10 |" in text
    assert "PCC 0.020 at most in size (3/√N = 0.150)" in text
    assert "-0.010 ± 0.000 of the target alone" in text


def test_probes_stand_beside_the_network_on_the_same_features_and_folds():
    from express_bench import tables

    folds = {"ridge": [0.1, 0.3], "hest": [0.0, 0.1], "genedml": [0.2, 0.2]}
    found = {"is_stand_in": True, "blocks": folds, "random": folds}
    job = {"n_spots": 9, "n_genes": 5, "backbones": {"colorstats": found}}
    text = tables.made({"jobs": {"her2st": job}, "machine": results()["machine"]})
    for row in (
        "ridge probe | 0.200 ± 0.100 | 0.200 ± 0.100",
        "probe of HEST-Benchmark | 0.050 ± 0.050",
        "Gene-DML | 0.200 ± 0.000",
    ):
        assert f"| colorstats (a stand-in) | {row} |" in text


def test_cells_of_the_paper_are_empty_until_somebody_has_run_them(tmp_path):
    from express_bench import published

    empty = published.table({})
    assert empty.count("|  |  |  |  |") == 6
    assert "restricted" in empty
    settings = {"encoder": "uni", "is_stand_in": False, "genes": ["A", "B"]}
    (tmp_path / "express.json").write_text(json.dumps(settings))
    lines = ["model\tmeasure\tmean"]
    for model in published.MODELS:
        lines += [f"{model}\t{name}\t0.25" for name in published.MEASURES]
    (tmp_path / "means.tsv").write_text("\n".join(lines))
    found = published.run([f"skinst={tmp_path}"])["data_sets"]
    text = published.table(found)
    assert text.count("| uni | ") == 2
    assert text.count("0.250 | 0.250 | 0.250 | 0.250") == 2
    assert text.count("|  |  |  |  |") == 4
    with pytest.raises(SystemExit, match="--model-dirs takes NAME=FOLDER"):
        published.run(["somewhere"])


def test_jobs_are_named_and_results_of_others_stay(tmp_path, monkeypatch):
    import express

    assert list(express.expanded(["planted:3", "step"])) == [
        ("planted", 3),
        ("step", None),
    ]
    assert len(list(express.expanded(["shuffled"]))) == express.N_SEEDS
    for job in ("other", "step:1"):
        with pytest.raises(SystemExit, match=f"no job '{job}' .*planted, shuffled"):
            list(express.expanded([job]))
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"jobs": {"planted:0": {"target": 1}}}))
    args = express.build_parser().parse_args(["step", "--json", str(path)])
    express.keep(args, "step", {"ratio": 1.0})
    assert set(json.loads(path.read_text())["jobs"]) == {"planted:0", "step"}


def test_shuffled_surroundings_leave_the_spot_its_own_patch():
    from express_bench import planted

    features, _ = planted.drawn(0)
    own = features[0]
    order = np.random.default_rng(0).permutation(own.n_spots)
    tiles = planted._others(own, order)
    np.testing.assert_array_equal(tiles[:, 12], own.neighbors[:, 12])
    np.testing.assert_array_equal(tiles[:, 3], own.neighbors[order, 3])


@pytest.mark.slow
def test_each_scale_adds_and_contrastive_losses_find_a_spots_expression():
    """The claims of the table, with one seed and half of the training."""
    from express_bench import planted

    found = planted.scales(0, 12)
    pcc = {name: one["pcc"] for name, one in found.items()}
    assert pcc["target"] + 0.05 < pcc["neighbor"] < pcc["global"] - 0.02
    assert abs(pcc["ridge"] - pcc["target"]) < 0.08  # a patch is all that both see
    assert pcc["ridge"] + 0.05 < pcc["ridge around"]
    chance = planted.BEST / 144
    assert found["global"]["retrieval"] < 3 * chance
    assert found["contrastive"]["retrieval"] > 5 * chance
    assert pcc["contrastive"] > pcc["global"] - 0.03
