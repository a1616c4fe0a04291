"""The bench of the losses compares what is the same, and says what is not reached."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("bench_folder")


def _row(form="neuromm", **changes):
    row = {
        "loss": "clip", "n_samples": 8192, "width": 256, "threads": 1, "timed": True,
        "form": form, "wall_s": 1.0, "cpu_s": 1.0, "extra_bytes": 5e7,
        "loss_error": 1e-7, "gradient_error": 1e-7,
    }  # fmt: skip
    return row | changes


def test_all_forms_of_a_loss_are_the_same_loss():
    from loss_bench.forms import EXACT, FORMS, leaves_of, step

    for loss, forms in FORMS.items():
        leaves = leaves_of(loss, 24, 8, torch.float64)
        exact = step(EXACT[loss], leaves)
        for name, form in forms.items():
            torch.testing.assert_close(
                step(form, leaves), exact, rtol=1e-9, atol=1e-10, msg=name
            )


def test_goals_that_are_missed_are_said():
    from loss_bench.tables import goals_text

    fast = goals_text([_row(), _row("eager", wall_s=3.0)])
    assert "NOT REACHED" not in fast
    assert "3.0 times as fast as eager" in fast
    slow = goals_text([_row(wall_s=4.0, extra_bytes=2e8), _row("eager", wall_s=3.0)])
    assert slow.count("NOT REACHED") == 2
    assert "NOT REACHED" in goals_text([_row(loss_error=1e-4)])
    assert "NOT REACHED" in goals_text([_row(failed="no memory")])


def test_the_table_has_a_row_for_each_form_and_takes_the_place_of_the_last(tmp_path):
    from loss_bench.tables import BEGIN, END, merged, write_docs

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rows = merged(
        [_row(wall_s=9.0)],
        [_row(), _row(threads=2, wall_s=0.5), _row("compile", failed="no compiler")],
    )
    write_docs(page, rows, "A machine.")
    text = page.read_text()
    assert "| neuromm | 1 | 0.5 | 50 | 1e-07 | 1e-07 |" in text
    assert "| torch.compile of eager | failed |" in text
    assert "old" not in text
    assert text.endswith(f"{END}\nafter\n")
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="has no lines"):
        write_docs(page, rows, "A machine.")


def test_a_case_that_is_unknown_is_refused():
    from losses import parse_cases

    assert parse_cases(["gram,64,8", "memory"])[0] == ("gram", 64, 8, True)
    assert not any(timed for *_, timed in parse_cases(["memory"]))
    for word in ("clip", "clip,8", "clip,0,8", "other,8,8"):
        with pytest.raises(SystemExit, match="--cases takes short, full, memory"):
            parse_cases([word])
