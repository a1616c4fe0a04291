"""The demo counts what was found rightly; the doctor names what is broken."""

import pandas as pd
import pytest

from neuromm_pipelines import doctor
from neuromm_pipelines.demo import _simes, recovery


def test_simes_is_the_smallest_p_times_number_over_rank():
    # 4 p: 4 * 0.01 / 1, 4 * 0.02 / 2, 4 * 0.03 / 3, 4 * 0.8 / 4
    assert _simes(pd.Series([0.8, 0.02, 0.01, 0.03])) == pytest.approx(0.04)
    assert _simes(pd.Series([0.3])) == pytest.approx(0.3)
    assert _simes(pd.Series([float("nan")])) == 1.0


def test_recovery_counts_hits_and_false_discoveries(tmp_path):
    folder = tmp_path / "sub-01" / "func"
    folder.mkdir(parents=True)
    small = {
        "a": {"vision"},
        "b": {"vision", "language"},
        "c": {"language"},
        "d": set(),
    }
    rows = [
        {"target": target, "space": space, "p": 0.001 if space in found else 0.9}
        for target, found in small.items()
        for space in ("vision", "language")
    ]
    pd.DataFrame(rows).to_csv(
        folder / "sub-01_task-film_desc-encoding_scores.tsv", sep="\t", index=False
    )
    truth = pd.DataFrame(
        {
            "subject": "01",
            "datatype": "func",
            "target": list("abcd"),
            "kind": ["vision", "both", "none", "language"],
        }
    )
    table = recovery(tmp_path, truth).set_index("space")
    assert table.loc["vision", ["planted", "found"]].tolist() == [2, 2]
    assert table.loc["vision", "sensitivity"] == 1.0
    assert table.loc["vision", "false_discoveries"] == 0.0
    # Planted b and d; found b and c.
    assert table.loc["language", "sensitivity"] == 0.5
    assert table.loc["language", "false_discoveries"] == 0.5


def test_a_folder_of_somebody_else_is_not_emptied(neuromm, tmp_path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    ran = neuromm("demo", tmp_path)
    assert ran.code == 2
    assert "not of an earlier demo" in ran.err
    assert precious.read_text() == "years of work"


def test_doctor_finds_this_environment_able_to_work(neuromm):
    ran = neuromm("doctor")
    assert ran.code == 0, ran.out
    assert "neuromm can work here" in ran.out
    assert "torch" in ran.out


def test_doctor_says_how_to_mend_what_is_broken(neuromm, monkeypatch):
    broken = doctor.Finding("atlases", "broken", "0 found", "install neuromm anew")
    monkeypatch.setattr(doctor, "examine", lambda: [broken])
    ran = neuromm("doctor")
    assert ran.code == 70
    assert "-> install neuromm anew" in ran.out
    assert ran.out.splitlines()[-1] == "neuromm doctor: broken: atlases"
