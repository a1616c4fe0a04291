"""The whole analysis of a subject, on responses with a planted answer."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neuromm.core import DataError, UsageError, feature_matrix, response_matrix
from neuromm.encoding import (
    BlockedKFold,
    RidgeCV,
    RunKFold,
    correlation_score,
    encode,
    noise_ceiling,
    r2_score,
)

N_RUNS, RUN_LENGTH = 4, 60
RUNS = [str(run) for run in np.repeat(np.arange(1, N_RUNS + 1), RUN_LENGTH)]
ONSET = np.tile(2.0 * np.arange(RUN_LENGTH), N_RUNS)
# Targets: 0-2 follow vision, 3-5 language, 6-8 both, 9-11 nothing.
KIND = np.repeat(["vision", "language", "both", "none"], 3)


def planted(seed=0, noise=0.7, dtype="f8"):
    rng = np.random.default_rng(seed)
    n_samples = N_RUNS * RUN_LENGTH
    vision = rng.standard_normal((n_samples, 5)) * 3 + 10
    language = rng.standard_normal((n_samples, 8)) * 0.2
    by_vision = (vision - 10) @ rng.standard_normal((5, 12)) / 3 / np.sqrt(5)
    by_language = language @ rng.standard_normal((8, 12)) / 0.2 / np.sqrt(8)
    y = noise * rng.standard_normal((n_samples, 12)) + 2
    y += by_vision * np.isin(KIND, ["vision", "both"])
    y += by_language * np.isin(KIND, ["language", "both"])
    spaces = {
        "vision": feature_matrix(vision, onset=ONSET, run=RUNS, space="vision"),
        "language": feature_matrix(language, onset=ONSET, run=RUNS, space="language"),
    }
    table = pd.DataFrame(
        {"target": [f"v{i}" for i in range(12)], "x": np.arange(12.0), "kind": KIND}
    )
    responses = response_matrix(y.astype(dtype), onset=ONSET, run=RUNS, targets=table)
    return spaces, responses


def test_each_space_predicts_the_targets_that_follow_it():
    spaces, responses = planted()
    results = encode(spaces, responses, n_permutations=199, rng=0)
    assert list(results) == ["vision", "language", "joint"]
    for name, follows in (
        ("vision", ["vision", "both"]),
        ("language", ["language", "both"]),
        ("joint", ["vision", "language", "both"]),
    ):
        scores = results[name].scores
        told = np.isin(KIND, follows)
        assert scores["r"].to_numpy()[told].min() > 0.3
        assert scores["r"].to_numpy()[~told].max() < 0.25
        assert scores["q"].to_numpy()[told].max() < 0.05
        assert scores["p"].to_numpy()[~told].min() > 0.01
    both = KIND == "both"
    joint = results["joint"].scores["r2"].to_numpy()
    for name in ("vision", "language"):
        assert np.all(joint[both] > results[name].scores["r2"].to_numpy()[both])


def test_scores_are_those_of_a_pipeline_fitted_on_each_training_part():
    spaces, responses = planted()
    alphas = np.geomspace(1e-1, 1e4, 7)
    result = encode(spaces["vision"], responses, alphas=alphas, keep_predictions=True)[
        "vision"
    ]
    x, y = spaces["vision"].to_numpy(), responses.to_numpy()
    runs = np.array(RUNS)
    prediction = np.empty_like(y)
    for fold, (train, test) in enumerate(RunKFold().split(x, groups=runs)):
        inner = list(RunKFold().split(train, groups=runs[train]))
        model = make_pipeline(StandardScaler(), RidgeCV(alphas, cv=inner))
        with pytest.warns(UserWarning, match="of the targets chose"):
            model.fit(x[train], y[train])
        prediction[test] = model.predict(x[test])
        scores = result.scores.isel(fold=fold)
        np.testing.assert_array_equal(scores["alpha"], model[-1].best_alphas_)
        np.testing.assert_allclose(
            scores["r_fold"], correlation_score(y[test], prediction[test])
        )
        np.testing.assert_allclose(
            scores["r2_fold"], r2_score(y[test], prediction[test])
        )
        assert scores["held_out_runs"] == str(fold + 1)
    np.testing.assert_allclose(result.predictions, prediction, rtol=1e-10)
    np.testing.assert_allclose(result.scores["r"], correlation_score(y, prediction))
    np.testing.assert_allclose(result.scores["r2"], r2_score(y, prediction))


def test_held_out_runs_reach_neither_scaling_nor_penalty_nor_weights():
    spaces, responses = planted()
    x = spaces["vision"]
    held_out = np.array(RUNS)[:, None] == "1"
    poisoned = x.copy(data=np.where(held_out & (np.arange(240) > 0)[:, None], 1e6, x))
    spoiled = responses.copy(data=np.where(held_out, -1e6, responses))
    cv = [(np.arange(60, 240), np.arange(60))]
    clean, other = (
        encode(features, y, cv=cv, keep_predictions=True)["vision"]
        for features, y in ((x, responses), (poisoned, spoiled))
    )
    np.testing.assert_array_equal(clean.scores["alpha"], other.scores["alpha"])
    # The first row kept its features, and so its prediction.
    np.testing.assert_allclose(clean.predictions[0], other.predictions[0], rtol=1e-12)
    assert np.isnan(clean.predictions.isel(sample=slice(60, None))).all()


def test_targets_that_cannot_be_scored_are_nan_and_listed():
    spaces, responses = planted()
    clean = encode(spaces["vision"], responses, n_permutations=19)["vision"]
    values = responses.to_numpy().copy()
    values[:, 1] = 0.1
    values[5, 4] = np.nan
    result = encode(
        spaces["vision"],
        responses.copy(data=values),
        n_permutations=19,
        keep_weights=True,
    )["vision"]
    masked = np.isin(np.arange(12), [1, 4])
    for name in ("r", "r2", "p", "q", "r_fold", "r2_fold", "alpha"):
        found = np.isnan(result.scores[name].to_numpy())
        np.testing.assert_array_equal(found, np.broadcast_to(masked, found.shape))
    np.testing.assert_array_equal(
        result.scores["r"][~masked], clean.scores["r"][~masked]
    )
    assert result.attrs["masked_targets"] == ["v1", "v4"]
    assert np.isnan(result.weights[:, masked]).all()


def test_results_carry_labels_settings_and_weights_in_units_of_the_features_spread():
    spaces, responses = planted(noise=0.0)
    seen = []
    results = encode(
        spaces,
        responses,
        alphas=[1e-6, 1e-5],
        keep_weights=True,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 12) for done in range(1, 13)]
    joint = results["joint"]
    assert joint.weights.dims == ("feature", "target")
    assert joint.weights["feature"].to_numpy()[[0, 5]].tolist() == [
        "vision:0",
        "language:0",
    ]
    x = np.hstack([space.to_numpy() for space in spaces.values()])
    centred = responses.to_numpy() - responses.to_numpy().mean(0)
    truth = np.linalg.lstsq(x - x.mean(0), centred, rcond=None)[0]
    predicted = KIND != "none"  # without noise those never vary
    np.testing.assert_allclose(
        joint.weights[:, predicted],
        (truth * x.std(0)[:, None])[:, predicted],
        atol=1e-6,
    )
    assert joint.attrs["cv"] == "leave one run out, 4 folds"
    assert joint.attrs["n_folds"] == 4
    assert joint.attrs["n_features"] == 13
    assert joint.attrs["solver_form"].startswith("primal")
    # Without noise both alphas predict perfectly: ties go to the larger.
    assert joint.attrs["share_largest_alpha"] == 1
    table = joint.to_frame()
    assert table.columns.tolist()[:4] == ["target", "x", "kind", "space"]
    assert table["kind"].tolist() == KIND.tolist()


def test_features_are_paired_by_label_and_not_by_position():
    spaces, responses = planted()
    order = np.random.default_rng(0).permutation(240)
    moved = encode(spaces["vision"].isel(sample=order), responses)["vision"]
    kept = encode(spaces["vision"], responses)["vision"]
    np.testing.assert_array_equal(moved.scores["r"], kept.scores["r"])
    with pytest.raises(DataError, match="240 samples of the responses have no row"):
        encode(spaces["vision"].isel(sample=slice(100)), responses)


def test_the_same_seed_gives_the_same_numbers_and_float32_nearly_the_same():
    spaces, responses = planted()
    one, two = (
        encode(spaces["vision"], responses, n_permutations=49, rng=3)["vision"].scores
        for _ in range(2)
    )
    assert one.identical(two)
    single = encode(spaces["vision"], responses.astype("f4"))["vision"].scores
    np.testing.assert_allclose(single["r"], one["r"], atol=1e-5)


def test_the_array_library_changes_no_score():
    spaces, responses = planted()
    numpy, torch = (
        encode(spaces["vision"], responses, backend=backend, keep_weights=True)
        for backend in ("numpy", "torch")
    )
    for name, values in numpy["vision"].scores.items():
        np.testing.assert_allclose(torch["vision"].scores[name], values, rtol=1e-8)
    np.testing.assert_allclose(
        torch["vision"].weights, numpy["vision"].weights, rtol=1e-7, atol=1e-10
    )


def test_a_feature_that_is_constant_in_training_is_as_if_it_were_absent():
    spaces, responses = planted()
    x = spaces["vision"].to_numpy()
    only_in_run_1 = (np.array(RUNS) == "1") * 1.0
    padded = np.column_stack([x, np.full(240, 0.1), only_in_run_1])
    more = feature_matrix(padded, onset=ONSET, run=RUNS, space="vision")
    cv = [(np.arange(60, 240), np.arange(60))]
    with_them = encode(more, responses, cv=cv)["vision"].scores
    without = encode(spaces["vision"], responses, cv=cv)["vision"].scores
    np.testing.assert_allclose(with_them["r"], without["r"], rtol=1e-10)


def test_centring_alone_keeps_the_scale_of_features():
    spaces, responses = planted()
    scaled = spaces["vision"].copy(data=spaces["vision"].to_numpy() * 1e-9)
    alphas = np.geomspace(1e-1, 1e4, 6)
    zscored = [
        encode(x, responses, alphas=alphas)["vision"].scores["r2"]
        for x in (spaces["vision"], scaled)
    ]
    np.testing.assert_allclose(zscored[0], zscored[1], atol=1e-9)
    centred = encode(scaled, responses, alphas=alphas, standardize=False)["vision"]
    # A weight of unit size would need features of unit size: all is shrunken away.
    assert centred.scores["r2"].max() < 0.01


def test_a_single_run_is_cut_into_blocks_with_a_gap():
    spaces, responses = planted()
    first = responses.isel(sample=slice(60))
    result = encode(spaces["vision"], first)["vision"]
    assert result.attrs["cv"] == "5 contiguous blocks, 20 s purged"
    blocks = encode(spaces["vision"], first, cv=BlockedKFold(3, purge=4.0))["vision"]
    assert blocks.attrs["cv"] == "3 contiguous blocks, 4 s purged"
    epochs = first.assign_coords(time=("target", np.linspace(-0.2, 0.6, 12)))
    timed = encode(spaces["vision"], epochs, inner_cv=3)["vision"]
    assert timed.attrs["cv"] == "5 contiguous blocks, 0.8 s purged"


def test_repeats_are_averaged_and_give_the_ceiling():
    spaces, responses = planted()
    rng = np.random.default_rng(1)
    repeats = responses.to_numpy() + rng.standard_normal((3, 240, 12))
    labelled = response_matrix(repeats, onset=ONSET, run=RUNS)
    scores = encode(spaces, labelled)["joint"].scores
    np.testing.assert_allclose(scores["ceiling"], noise_ceiling(repeats))
    mean = response_matrix(repeats.mean(0), onset=ONSET, run=RUNS)
    np.testing.assert_allclose(scores["r"], encode(spaces, mean)["joint"].scores["r"])


def test_runs_of_two_subjects_do_not_mix():
    spaces, responses = planted()
    subject = np.array(["01"] * 120 + ["02"] * 120, dtype=object)
    run = np.array((["1"] * 60 + ["2"] * 60) * 2, dtype=object)
    relabel = {"subject": ("sample", subject), "run": ("sample", run)}
    result = encode(
        spaces["vision"].assign_coords(relabel), responses.assign_coords(relabel)
    )["vision"]
    assert result.scores["held_out_runs"].to_numpy().tolist() == [
        "01/1",
        "01/2",
        "02/1",
        "02/2",
    ]


def test_messages_name_the_cure():
    spaces, responses = planted()
    holed = spaces["vision"].copy(data=spaces["vision"].to_numpy().copy())
    holed[3, 2] = np.nan
    with pytest.raises(DataError, match=r"'2'.*and 1 of 240 samples\. Fill them in"):
        encode(holed, responses)
    with pytest.raises(UsageError, match="two blocks of 40 samples"):
        encode(spaces, responses, n_permutations=9, block=40)
    with pytest.raises(UsageError, match="held out once"):
        encode(spaces, responses, cv=[(range(60, 240), range(60))] * 2)
    with pytest.raises(UsageError, match="inner_cv must be a number of folds or"):
        encode(spaces, responses, inner_cv=[(range(60, 240), range(60))])
    with pytest.raises(UsageError, match="at least one feature space"):
        encode({}, responses)


def test_a_space_called_joint_is_taken_as_it_is_and_nothing_is_concatenated():
    spaces, responses = planted()
    named = {"joint": spaces["vision"], "language": spaces["language"]}
    results = encode(named, responses)
    assert list(results) == ["joint", "language"]
    alone = encode({"vision": spaces["vision"]}, responses)["vision"]
    np.testing.assert_array_equal(results["joint"].scores["r"], alone.scores["r"])
