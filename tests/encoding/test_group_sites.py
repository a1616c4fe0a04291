"""Sites of several subjects: what is planted comes back, and few subjects say so."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromm.core import UsageError
from neuromm.encoding import integration_sites
from neuromm.encoding.group_comparisons import (
    best_models,
    comparison_table,
    comparison_winners,
    winner_counts,
)
from neuromm.encoding.group_courses import score_courses
from neuromm.encoding.group_resampling import ratio_interval, sign_flip_p, tail
from neuromm.encoding.group_sites import (
    both_alignments,
    group_effect,
    model_ranks,
    region_table,
)
from neuromm.simulate import make_integration_dataset

REGIONS = ("Insula", "Precentral", "Superior temporal")


def table(is_site, region="Insula", gain=0.01, **columns):
    found = np.asarray(is_site, dtype=bool)
    return pd.DataFrame(
        {
            "target": [f"A{i}" for i in range(len(found))],
            "region": region,
            "gain": gain,
            "q": np.where(found, 0.01, 0.5),
            "is_site": found,
            **columns,
        }
    )


def subjects_with_share(rng, n_subjects, mean_share):
    """Contacts per subject vary, and so does the share of sites among them."""
    tables = {}
    for number in range(n_subjects):
        share = rng.beta(6 * mean_share, 6 * (1 - mean_share))
        n_contacts = 6 + rng.poisson(6)
        tables[f"{number:02d}"] = table(rng.random(n_contacts) < share)
    return tables


def test_the_planted_share_lies_in_its_interval_as_often_as_stated():
    rng = np.random.default_rng(0)
    n_replicates, inside = 300, 0
    for _ in range(n_replicates):
        regions = region_table(subjects_with_share(rng, 12, 1 / 3), n_resamples=400)
        row = regions.iloc[0]
        inside += row["share_low"] <= 1 / 3 <= row["share_high"]
    # Between 93 and 97 %, with two standard errors for the number of replicates.
    assert 0.93 - 0.025 <= inside / n_replicates <= 0.97 + 0.025


def test_a_group_mean_lies_in_its_interval_as_often_as_stated():
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(10), 12)
    n_replicates = {"random": 300, "fixed": 100}
    inside = dict.fromkeys(n_replicates, 0)
    for kind, n in n_replicates.items():
        for _ in range(n):
            gains = 0.03 + 0.02 * rng.standard_normal(10)[people]
            gains += 0.03 * rng.standard_normal(len(people))
            row = group_effect(gains, people, kind=kind, n_resamples=400).iloc[0]
            inside[kind] += row["ci_low"] <= 0.03 <= row["ci_high"]
    assert 0.93 - 0.025 <= inside["random"] / 300 <= 0.97 + 0.025
    # Pooled targets say nothing of other subjects: their interval is far too narrow.
    assert inside["fixed"] / 100 < 0.8


def test_random_effects_are_less_certain_than_fixed_ones_where_subjects_differ():
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(8), 20)
    gains = 0.05 + 0.05 * rng.standard_normal(8)[people]
    gains += 0.01 * rng.standard_normal(len(people))
    random, fixed = (
        group_effect(gains, people, kind=kind).iloc[0] for kind in ("random", "fixed")
    )
    assert random["ci_high"] - random["ci_low"] > 2 * (
        fixed["ci_high"] - fixed["ci_low"]
    )
    assert random["mean"] == pytest.approx(fixed["mean"])
    assert random["p"] > fixed["p"]


def test_signs_are_flipped_in_every_way():
    values = np.array([0.3, -0.1, 0.2, 0.05, 0.4, -0.02])
    sums = [np.dot(s, values) for s in itertools.product((1, -1), repeat=6)]
    for alternative, large in (
        ("greater", np.array(sums) >= values.sum() - 1e-12),
        ("two-sided", np.abs(sums) >= abs(values.sum()) - 1e-12),
    ):
        p, smallest = sign_flip_p(
            values,
            alternative=alternative,
            n_resamples=1,
            rng=np.random.default_rng(0),
        )
        assert p == large.mean()
        assert smallest == (1 if alternative == "greater" else 2) / 64


def test_many_units_get_the_p_of_a_sample_of_signs():
    rng = np.random.default_rng(3)
    values = 0.15 + rng.standard_normal(40)
    p, smallest = sign_flip_p(
        values, alternative="greater", n_resamples=20_000, rng=rng
    )
    # The sum of flipped values is nearly normal, of variance sum of squares.
    from scipy.stats import norm

    expected = norm.sf(values.sum() / np.sqrt((values**2).sum()))
    assert p == pytest.approx(expected, abs=0.01)
    assert smallest == 1 / 20_001


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 12))
def test_flipping_all_signs_turns_the_p_around(seed, n_units):
    values = np.random.default_rng(seed).standard_normal(n_units)
    up, down = (
        sign_flip_p(
            sign * values,
            alternative="greater",
            n_resamples=1,
            rng=np.random.default_rng(0),
        )[0]
        for sign in (1, -1)
    )
    # The observed pattern counts on both sides; values have no ties.
    assert up + down == pytest.approx(1 + 2.0**-n_units)


def test_null_p_of_exact_sign_flips_is_uniform():
    rng = np.random.default_rng(4)
    p = [
        sign_flip_p(
            rng.standard_normal(9), alternative="greater", n_resamples=1, rng=rng
        )[0]
        for _ in range(500)
    ]
    for level in (0.05, 0.25, 0.5):
        error = np.sqrt(level * (1 - level) / 500)
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3 * error)


def test_few_subjects_are_warned_of_with_the_smallest_p():
    people = np.repeat(np.arange(4), 5)
    with pytest.warns(UserWarning, match=r"on 4, where p cannot fall below 0\.0625"):
        row = group_effect(np.full(20, 0.1), people).iloc[0]
    assert row["p"] == row["smallest_p"] == 1 / 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group_effect(np.full(20, 0.1), people, kind="fixed")
        group_effect(np.full(30, 0.1), np.repeat(np.arange(6), 5))


def test_effects_of_regions_are_corrected_for_their_number():
    from scipy.stats import false_discovery_control

    rng = np.random.default_rng(5)
    people = np.tile(np.repeat(np.arange(8), 4), 3)
    regions = np.repeat(REGIONS, 32)
    gains = rng.standard_normal(96) * 0.02 + 0.03 * (regions == "Superior temporal")
    effects = group_effect(gains, people, regions=regions)
    assert effects["region"].iloc[0] == "Superior temporal"
    np.testing.assert_allclose(effects["q"], false_discovery_control(effects["p"]))
    alone = group_effect(gains[regions == "Insula"], people[regions == "Insula"])
    both = effects.set_index("region").loc["Insula"]
    assert both["p"] == alone["p"].iloc[0]
    assert both["n_targets"] == 32


def test_every_subject_counts_the_same_in_random_effects_and_every_target_in_fixed():
    people = np.array([0] * 10 + [1] * 2 + [2] * 2 + [3] * 2 + [4] * 2 + [5] * 2)
    gains = np.where(people == 0, 0.1, 0.0)
    random, fixed = (
        group_effect(gains, people, kind=kind)["mean"].iloc[0]
        for kind in ("random", "fixed")
    )
    assert random == pytest.approx(0.1 / 6)
    assert fixed == pytest.approx(1.0 / 20)


def test_percentiles_move_out_as_student_and_hesterberg_say():
    # Student's t of 9 degrees is 2.2622, and Phi(-2.2622 sqrt(10 / 9)) is 0.00855.
    assert tail(0.95, 10) == pytest.approx(0.00855, abs=1e-5)
    assert tail(0.95, 10**6) == pytest.approx(0.025, rel=1e-3)


def test_a_single_subject_has_no_interval():
    assert np.isnan(
        ratio_interval(
            np.array([3.0]),
            np.array([9.0]),
            confidence=0.95,
            n_resamples=10,
            rng=np.random.default_rng(0),
        )
    ).all()
    row = region_table({"01": table([1, 0, 0])}).iloc[0]
    assert row["share"] == pytest.approx(1 / 3)
    assert np.isnan([row["share_low"], row["share_high"]]).all()


def test_no_site_among_few_targets_is_not_certainly_none():
    tables = {name: table([0] * 5) for name in ("01", "02", "03", "04")}
    row = region_table(tables).iloc[0]
    # Clopper-Pearson for 0 of 20.
    assert (row["share"], row["share_low"]) == (0, 0)
    assert row["share_high"] == pytest.approx(0.1684, abs=1e-4)


def test_regions_are_counted_over_subjects_and_the_best_comes_first():
    one = table([1, 1, 0, 0], ["Insula", "Insula", "Precentral", "n/a"])
    two = table([1, 0, 0], ["Insula", "Precentral", "Precentral"], gain=0.03)
    two.loc[2, "gain"] = np.nan  # not scored
    regions = region_table({"01": one, "02": two})
    assert list(regions["region"]) == ["Insula", "Precentral"]
    first = regions.iloc[0]
    assert (first["n_targets"], first["n_sites"], first["n_subjects"]) == (3, 3, 2)
    assert first["share"] == 1.0
    assert first["mean_gain"] == pytest.approx(0.05 / 3)
    assert regions["n_targets"].iloc[1] == 2
    assert regions.attrs["n_without_region"] == 1
    assert regions.attrs["share"] == pytest.approx(3 / 5)
    joined = pd.concat([one.assign(subject="01"), two.assign(subject="02")])
    pd.testing.assert_frame_equal(region_table(joined), regions)


def test_a_target_that_is_given_twice_is_not_counted_twice():
    twice = pd.concat([table([1, 0]), table([1, 0])])
    with pytest.raises(UsageError, match="2 rows occur twice, such as subject 01"):
        region_table({"01": twice})


def test_tables_without_regions_or_subjects_are_refused_with_a_cure():
    with pytest.raises(UsageError, match=r"load_atlas\(\.\.\.\)\.label"):
        region_table({"01": table([1, 0], "n/a")})
    with pytest.raises(UsageError, match="column subject"):
        region_table(table([1, 0]))
    with pytest.raises(UsageError, match="lack the column region"):
        region_table({"01": table([1, 0]).drop(columns="region")})


def compared(p, own, other):
    n = len(p)
    return table(
        [0] * n,
        score_joint=own,
        score_vision=other,
        p_joint_over_vision=p,
        p_vision_over_joint=1 - np.asarray(p),
    )


def test_winners_by_default_are_counted_apart():
    tables = {
        "01": compared([1e-4, 0.5, 0.9999], [0.3, 0.2, 0.1], [0.1, 0.2, 0.3]),
        "02": compared([np.nan] * 3, [0.3, np.nan, np.nan], [np.nan, 0.2, np.nan]),
    }
    winners = comparison_winners(tables)
    assert list(winners["winner"]) == [
        "first", "", "second", "default first", "default second", "",
    ]  # fmt: skip
    counts = winner_counts(tables).iloc[0]
    assert tuple(counts) == ("Insula", "joint", "vision", 3, 1, 1, 1 / 3, 1, 1)
    regions = region_table(
        {name: one.fillna({"gain": 0.0}) for name, one in tables.items()}
    )
    row = regions.iloc[0]
    assert row["share_joint_over_vision"] == pytest.approx(1 / 3)
    assert row["n_default_joint_over_vision"] == 1
    assert row["n_default_vision_over_joint"] == 1


def test_a_direction_that_was_not_tested_has_no_winners():
    tables = {
        "01": compared([0.9999], [0.1], [0.3]).drop(columns="p_vision_over_joint")
    }
    counts = winner_counts(tables, by=None)
    assert counts["n_second"].isna().all()
    assert list(comparison_winners(tables)["winner"]) == [""]


def test_comparisons_of_a_map_name_the_planted_winners():
    data = make_integration_dataset(1200, 25, r_max=0.5, rng=0)
    sites = integration_sites(data.features, data.responses, n_resamples=300, rng=0)
    told = comparison_table(sites)
    p = told[[f"p_joint_over_{name}" for name in ("vision", "language", "concatenation",
        "banded", "chance")]]  # fmt: skip
    np.testing.assert_allclose(p.max(axis=1), told["p"])
    written = sites.table.assign(
        **{
            f"p_{name}": sites.evidence["p_comparison"].sel(comparison=name).to_numpy()
            for name in sites.evidence["comparison"].to_numpy()
        }
    )
    pd.testing.assert_frame_equal(comparison_table(written), told)
    kind = data.truth["kind"].to_numpy()
    winners = comparison_winners({"01": told}).set_index(["second", "target"])["winner"]
    over_vision = winners["vision"].to_numpy()
    assert (over_vision[kind == "interactive"] == "first").all()
    assert (over_vision[kind == "language"] == "first").all()
    assert not (over_vision[kind == "vision"] == "first").any()
    best = best_models(told, ["vision", "language", "joint"])
    for name, model in (("vision", "vision"), ("interactive", "joint")):
        assert (best[kind == name] == model).all()


def test_a_site_of_both_alignments_is_one_in_each():
    words = {"01": table([1, 1, 0, 1], gain=[0.4, 0.3, 0.2, 0.1], x=7.0)}
    scenes = {"01": table([1, 0, 0], gain=[0.1, 0.3, 0.2])}
    both = both_alignments(words, scenes)
    assert list(both["is_site"]) == [True, False, False, False]
    assert list(both["is_site_word"]) == [True, True, False, True]
    assert list(both["is_site_scene"]) == [True, False, False, False]
    assert list(both["tested"]) == ["both", "both", "both", "word"]
    np.testing.assert_array_equal(both["gain"], [0.1, 0.3, 0.2, np.nan])
    np.testing.assert_array_equal(both["q"], [0.01, 0.5, 0.5, np.nan])
    assert (both["x"] == 7).all()
    # It goes on as the table of one alignment does; a missing one is not counted.
    assert region_table(both)["n_targets"].iloc[0] == 3


def test_alignments_are_joined_within_subjects():
    words = {"01": table([1]), "02": table([0])}
    scenes = {"01": table([0]), "02": table([1])}
    assert not both_alignments(words, scenes)["is_site"].any()
    assert "subject" not in both_alignments(table([1]), table([1]))


def test_alignments_do_not_depend_on_the_order_of_targets():
    rng = np.random.default_rng(6)
    words = table(rng.random(30) < 0.5, gain=rng.standard_normal(30))
    scenes = table(rng.random(30) < 0.5, gain=rng.standard_normal(30))
    shuffled = scenes.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        both_alignments(words, shuffled).sort_values("target", ignore_index=True),
        both_alignments(words, scenes).sort_values("target", ignore_index=True),
    )


def test_ranks_of_models_follow_their_planted_order_in_each_region():
    rng = np.random.default_rng(7)
    regions = np.repeat(REGIONS, 20)
    planted = {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.1], "c": [0.3, 0.1, 0.2]}
    scores = pd.DataFrame(
        {
            model: np.repeat(means, 20) + 0.02 * rng.standard_normal(60)
            for model, means in planted.items()
        }
    )
    ranks = model_ranks(scores, regions).pivot(
        index="region", columns="model", values="rank"
    )
    for number, region in enumerate(REGIONS):
        expected = pd.Series({m: v[number] for m, v in planted.items()})
        assert (ranks.loc[region] == expected.rank(ascending=False)).all()


def test_a_model_without_a_score_has_no_rank_and_ties_share_theirs():
    scores = pd.DataFrame(
        {"a": [0.2, 0.2], "b": [0.2, 0.2], "c": [0.1, 0.1], "d": [np.nan] * 2}
    )
    ranks = model_ranks(scores, ["Insula"] * 2).set_index("model")["rank"]
    np.testing.assert_array_equal(ranks[["a", "b", "c", "d"]], [1.5, 1.5, 3, np.nan])


def test_models_are_ranked_on_the_same_targets():
    # On its own easy target "a" looks better; where both have a score it is worse.
    scores = pd.DataFrame({"a": [0.9, 0.1, 0.1], "b": [np.nan, 0.2, 0.2]})
    ranks = model_ranks(scores, ["Insula"] * 3).set_index("model")
    assert ranks.loc["b", "rank"] == 1
    assert (ranks["n_targets"] == 2).all()


def test_a_subject_with_many_contacts_does_not_decide_the_ranks():
    scores = pd.DataFrame({"a": [0.5] * 8 + [0.1, 0.1], "b": [0.4] * 8 + [0.3, 0.3]})
    people = [0] * 8 + [1, 2]
    pooled = model_ranks(scores, ["Insula"] * 10).set_index("model")["rank"]
    means = model_ranks(scores, ["Insula"] * 10, subjects=people)
    assert pooled["a"] == 1
    assert means.set_index("model")["rank"]["b"] == 1
    assert (means["n_subjects"] == 3).all()


def course(rng, n_targets, peak, subject_offset=0.0):
    times = np.arange(-0.2, 0.81, 0.1)
    shape = 0.2 * np.exp(-0.5 * ((times - peak) / 0.15) ** 2)
    values = (
        shape + subject_offset + 0.02 * rng.standard_normal((n_targets, len(times)))
    )
    return pd.DataFrame(
        {
            "target": np.repeat([f"A{i}" for i in range(n_targets)], len(times)),
            "time": np.tile(times.round(3), n_targets),
            "region": "Insula",
            "score_joint": values.ravel(),
            "score_vision": values.ravel() - 0.05,
            "gain": values.ravel(),
            "is_site": np.tile(shape > 0.1, n_targets),
        }
    )


def test_the_time_of_the_largest_gain_is_the_planted_one():
    rng = np.random.default_rng(8)
    names = ("01", "02", "03", "04", "05", "06")
    courses = {name: course(rng, 4, peak=0.3) for name in names}
    tables = {name: table([1, 0, 0, 0]) for name in names}
    row = region_table(tables, courses=courses).iloc[0]
    assert row["time_of_largest_gain"] == pytest.approx(0.3)
    assert row["time_low"] <= 0.3 <= row["time_high"]
    assert row["time_high"] - row["time_low"] <= 0.2


def test_courses_are_means_of_subjects_with_an_interval_over_subjects():
    rng = np.random.default_rng(9)
    offsets = rng.standard_normal(8) * 0.05
    courses = {
        f"{i}": course(rng, 3 + i, 0.3, offset) for i, offset in enumerate(offsets)
    }
    means = score_courses(courses)
    joint = means[means["model"] == "joint"].set_index("time")
    by_subject = pd.DataFrame(
        {
            name: one.groupby("time")["score_joint"].mean()
            for name, one in courses.items()
        }
    )
    np.testing.assert_allclose(joint["score"], by_subject.mean(axis=1))
    assert (joint["ci_low"] < joint["score"]).all()
    assert (joint["score"] < joint["ci_high"]).all()
    half = 2.365 * by_subject.std(axis=1, ddof=1) / np.sqrt(8)  # Student's t, 7 degrees
    np.testing.assert_allclose(
        (joint["ci_high"] - joint["ci_low"]) / 2, half, rtol=0.25
    )
    assert set(joint["resampled"]) == {"subjects"}
    np.testing.assert_array_equal(
        joint["share_sites"], (abs(joint.index - 0.3) < 0.16).astype(float)
    )


def test_the_course_of_one_subject_has_the_interval_of_its_targets():
    rng = np.random.default_rng(10)
    means = score_courses({"01": course(rng, 12, 0.3)}, by="region")
    assert set(means["resampled"]) == {"targets"}
    assert (means["ci_low"] <= means["score"]).all()
    single = score_courses({"01": course(rng, 1, 0.3)})
    assert single["ci_low"].isna().all()
