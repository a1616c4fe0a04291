"""Several layers of one space: the choice is made inside, and costs nothing outside."""

import numpy as np
import pandas as pd
import pytest

from neuromm.core import UsageError, feature_matrix, response_matrix
from neuromm.encoding import encode
from neuromm.encoding.candidate_choice import CandidateChoice

N_RUNS, N_PER_RUN, N_FEATURES, N_LAYERS = 4, 60, 8, 5
N_SAMPLES = N_RUNS * N_PER_RUN
ALPHAS = (1.0, 10.0, 100.0, 1000.0)
RUN = np.repeat(np.arange(N_RUNS), N_PER_RUN).astype(str)
ONSET = np.tile(np.arange(N_PER_RUN, dtype=float), N_RUNS)


def _features(values):
    return feature_matrix(values, onset=ONSET, run=RUN)


def _responses(values):
    names = pd.DataFrame({"target": [f"voxel{i}" for i in range(values.shape[1])]})
    return response_matrix(values, onset=ONSET, run=RUN, targets=names)


def _layers(rng, n_layers=N_LAYERS):
    return {
        f"layer{number}": _features(rng.standard_normal((N_SAMPLES, N_FEATURES)))
        for number in range(n_layers)
    }


def test_each_target_takes_the_layer_that_drives_it_in_every_fold():
    rng = np.random.default_rng(0)
    layers = _layers(rng)
    planted = np.arange(2 * N_LAYERS) % N_LAYERS
    weights = rng.standard_normal((N_FEATURES, len(planted))) / np.sqrt(N_FEATURES)
    signal = np.stack(
        [
            layers[f"layer{one}"].to_numpy() @ weights[:, place]
            for place, one in enumerate(planted)
        ],
        axis=1,
    )
    responses = _responses(signal + rng.standard_normal(signal.shape))
    result = encode({"vision": layers}, responses, alphas=ALPHAS)["vision"]
    taken = result.scores["candidate"].to_numpy()
    assert result.attrs["candidates"] == list(layers)
    np.testing.assert_array_equal(taken, np.tile(planted, (N_RUNS, 1)))
    alone = [
        encode({"vision": layers[f"layer{one}"]}, responses, alphas=ALPHAS)["vision"]
        for one in range(N_LAYERS)
    ]
    for place, one in enumerate(planted):
        np.testing.assert_array_equal(
            result.scores.isel(target=place)["r_fold"],
            alone[one].scores.isel(target=place)["r_fold"],
        )


def test_the_choice_among_layers_of_noise_does_not_raise_the_score():
    rng = np.random.default_rng(1)
    means, chosen_after = [], []
    for _ in range(12):
        layers = _layers(rng)
        responses = _responses(rng.standard_normal((N_SAMPLES, 20)))
        spaces = {"nested": layers, **layers}
        results = encode(spaces, responses, alphas=ALPHAS, joint=False)
        means.append(results.pop("nested").scores["r_fold"].mean().item())
        best = np.max(
            [one.scores["r_fold"].mean("fold") for one in results.values()], 0
        )
        chosen_after.append(best.mean())
    # Replicates are independent, targets of one share their features.
    error = np.std(means, ddof=1) / np.sqrt(len(means))
    assert abs(np.mean(means)) < 3 * error
    # What the nested choice saves: the best layer by the scores that are reported.
    assert np.mean(chosen_after) > 10 * error


def test_the_held_out_fold_takes_no_part_in_the_choice():
    rng = np.random.default_rng(2)
    layers = _layers(rng)
    y = rng.standard_normal((N_SAMPLES, 6))
    before = encode({"vision": layers}, _responses(y), alphas=ALPHAS)["vision"]
    other = y.copy()
    held = RUN == "2"
    other[held] = layers["layer3"].to_numpy()[held][:, :6]
    after = encode({"vision": layers}, _responses(other), alphas=ALPHAS)["vision"]
    fold = before.scores["held_out_runs"].to_numpy().tolist().index("2")
    for name in ("candidate", "alpha"):
        np.testing.assert_array_equal(
            before.scores[name][fold], after.scores[name][fold]
        )
    assert not before.scores["candidate"].equals(after.scores["candidate"])


def test_one_candidate_gives_the_numbers_of_the_space_itself():
    rng = np.random.default_rng(3)
    (layer,) = _layers(rng, 1).values()
    signal = layer.to_numpy()[:, :3]
    y = _responses(signal + rng.standard_normal(signal.shape))
    settings = {"alphas": ALPHAS, "keep_weights": True, "n_permutations": 20}
    plain = encode({"vision": layer}, y, **settings)["vision"]
    alone = encode({"vision": {"layer4": layer}}, y, **settings)["vision"]
    assert (alone.scores["candidate"] == 0).all()
    assert alone.scores.drop_vars("candidate").equals(plain.scores)
    np.testing.assert_array_equal(alone.weights, plain.weights)
    assert alone.weights["feature"][0] == "layer4:0"


def test_weights_are_those_of_the_layer_that_all_samples_choose():
    rng = np.random.default_rng(4)
    layers = _layers(rng, 2)
    signal = layers["layer1"].to_numpy()[:, :2]
    y = np.column_stack([signal + 0.3 * rng.standard_normal(signal.shape), RUN == ""])
    result = encode(
        {"vision": layers}, _responses(y), alphas=ALPHAS, keep_weights=True
    )["vision"]
    weights = result.weights.to_numpy()
    assert (weights[:N_FEATURES, :2] == 0).all()
    assert np.abs(weights[N_FEATURES:, :2]).max() > 0.5
    # The last target is constant: nothing is chosen for it.
    assert np.isnan(weights[:, 2]).all()
    assert (result.scores["candidate"][:, 2] == -1).all()


def test_the_joint_model_holds_all_candidates_side_by_side():
    rng = np.random.default_rng(5)
    layers, language = _layers(rng, 3), _layers(rng, 1)["layer0"]
    y = _responses(rng.standard_normal((N_SAMPLES, 4)))
    nested = encode({"vision": layers, "language": language}, y, alphas=ALPHAS)
    plain = encode({**layers, "language": language}, y, alphas=ALPHAS)
    assert nested["joint"].attrs["n_features"] == 4 * N_FEATURES
    assert nested["joint"].scores.equals(plain["joint"].scores)
    assert "candidate" not in nested["joint"].scores


def test_progress_counts_a_fit_for_each_candidate():
    rng = np.random.default_rng(6)
    seen = []
    encode(
        {"vision": _layers(rng, 3), "language": _layers(rng, 1)["layer0"]},
        _responses(rng.standard_normal((N_SAMPLES, 2))),
        alphas=ALPHAS,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (N_RUNS * 5, N_RUNS * 5)


def test_a_space_without_a_candidate_is_refused():
    y = _responses(np.random.default_rng(7).standard_normal((N_SAMPLES, 2)))
    with pytest.raises(UsageError, match="'vision' has no candidate"):
        encode({"vision": {}}, y)


def test_a_tie_and_a_missing_score_keep_the_earlier_candidate():
    choice = CandidateChoice.of(3)
    assert choice.better(np.array([0.1, np.nan, 0.3])).all()
    np.testing.assert_array_equal(
        choice.better(np.array([0.1, 0.2, 0.4])), [False, False, True]
    )
    np.testing.assert_array_equal(choice.taken, [0, 0, 1])
