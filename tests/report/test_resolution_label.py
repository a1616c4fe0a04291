"""A name with res- is valid BIDS only with its Resolution told."""

import json

from neuromm.encoding import encode
from neuromm.report import write_unit
from neuromm.simulate import make_encoding_dataset


def test_sidecars_of_a_resampled_unit_tell_its_resolution(tmp_path):
    data = make_encoding_dataset(n_samples=120, n_targets=6, rng=0)
    results = encode(data.features["vision"], data.responses)
    paths = write_unit(tmp_path, {"subject": "01", "resolution": "8"}, "func", results)
    (sidecar,) = [path for path in paths if path.suffix == ".json"]
    assert json.loads(sidecar.read_text())["Resolution"].endswith("8")
