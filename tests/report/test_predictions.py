"""Saved predictions are those of the fit, and read without pickle."""

import numpy as np
import pytest

from neuromm.core import UsageError
from neuromm.encoding import correlation_score, encode
from neuromm.report import write_predictions
from neuromm.simulate import make_encoding_dataset


def test_scores_follow_from_the_saved_file(tmp_path):
    data = make_encoding_dataset(n_samples=120, n_targets=6, rng=0)
    results = encode(data.features, data.responses, keep_predictions=True)
    path = write_predictions(
        tmp_path, {"subject": "01"}, "func", results["vision"], data.responses
    )
    assert path.name == "sub-01_contrast-vision_desc-encoding_predictions.npz"
    with np.load(path, allow_pickle=False) as arrays:
        r = correlation_score(arrays["responses"], arrays["predictions"])
        assert list(arrays["run"]) == list(data.responses["run"].to_numpy())
    # Saved in float32.
    np.testing.assert_allclose(r, results["vision"].scores["r"], atol=1e-5)
    before = path.read_bytes()
    write_predictions(
        tmp_path, {"subject": "01"}, "func", results["vision"], data.responses
    )
    assert path.read_bytes() == before


def test_a_result_without_predictions_is_refused(tmp_path):
    data = make_encoding_dataset(n_samples=120, n_targets=6, rng=0)
    result = encode(data.features, data.responses)["vision"]
    with pytest.raises(UsageError, match="without predictions"):
        write_predictions(tmp_path, {"subject": "01"}, "func", result, data.responses)
