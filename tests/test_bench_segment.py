"""The segmentation benchmark splits by patient, is fair to the U-Net, and adds up."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("bench_folder")


def test_each_patient_is_tested_once_and_never_in_two_folds():
    from segment_bench import spider

    patients = np.repeat([str(n) for n in range(3, 34)], 2)
    folds = [spider.test_patients(patients, fold) for fold in range(spider.N_FOLDS)]
    assert sum(len(fold) for fold in folds) == 31
    assert set().union(*folds) == set(patients)


@pytest.mark.parametrize("width", [4, 8])
def test_the_unet_is_as_large_as_the_network_beside_it(width):
    from segment_bench import spider

    ours = spider.n_weights(spider.ivdnet(2, width))
    theirs = spider.n_weights(spider.unet(2, ours))
    assert abs(theirs / ours - 1) < 0.05


def test_fewer_pixels_keep_means_and_the_commonest_class():
    from segment_bench import spider

    picture = np.arange(16.0).reshape(1, 4, 4)
    labels = np.array([[[1, 1, 0, 0], [1, 0, 0, 0], [2, 2, 0, 1], [0, 2, 1, 1]]])
    few, classes = spider.small(picture, labels, 3, 2)
    np.testing.assert_array_equal(few, [[[2.5, 4.5], [10.5, 12.5]]])
    np.testing.assert_array_equal(classes, [[[1, 0], [2, 1]]])


def planted(scores):
    return {
        f"planted:{seed}:{variant}": {
            "dice": value,
            "localisation_mm": None,
            "detection_rate": 0.5,
            "minutes": 1.0,
            "epochs": 20,
            "width": 4,
            "learning_rate": 1e-3,
        }
        for variant, values in scores.items()
        for seed, value in enumerate(values)
    }


def test_a_table_has_means_over_seeds_and_the_page_keeps_its_text(tmp_path):
    from segment_bench import tables

    jobs = planted({"four paths": [0.9, 0.94, 0.95], "water only": [0.2, 0.4, 0.3]})
    machine = {"python": "3.11", "neuromm": "0", "torch": "0", "monai": "0"}
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{tables.START}\nold\n{tables.END}\nAfter.\n")
    for _ in range(2):
        tables.write({"jobs": jobs, "machine": machine}, page)
    text = page.read_text()
    assert text.startswith(f"Before.\n{tables.START}\n")
    assert text.endswith(f"{tables.END}\nAfter.\n")
    assert "old" not in text
    assert "| four paths | 0.900, 0.940, 0.950 | **0.930** |" in text
    assert "| water only | 0.200, 0.400, 0.300 | **0.300** |" in text


def test_a_page_without_a_place_for_the_tables_is_an_error(tmp_path):
    from segment_bench import tables

    page = tmp_path / "page.md"
    page.write_text("no marks")
    results = {"jobs": {}, "machine": dict.fromkeys(("neuromm", "torch"), "0")}
    with pytest.raises(SystemExit, match="no place for the tables"):
        tables.write(results, page)


def test_results_of_jobs_that_run_apart_are_kept_together(tmp_path):
    import segment

    path = tmp_path / "results.json"
    args = segment.build_parser().parse_args(["--json", str(path), "--width", "8"])
    for label, dice in (("a", 0.5), ("b", 0.25), ("a", 0.75)):
        segment.keep(args, label, {"dice": dice, "minutes": 1})
    jobs = json.loads(path.read_text())["jobs"]
    assert {name: job["dice"] for name, job in jobs.items()} == {"a": 0.75, "b": 0.25}
    assert jobs["a"]["width"] == 8


def test_a_job_that_is_none_is_named_with_those_that_are():
    import segment

    assert list(segment.expanded(["open-ms", "planted:1"])) == [
        ("open-ms", 2),
        ("open-ms", 3),
        ("planted", 1),
    ]
    with pytest.raises(SystemExit, match=r"no job 'discs' .*planted, spider"):
        list(segment.expanded(["discs"]))
