"""What must be the same after a restart holds nothing that changes."""

from neuromm.core.provenance import Provenance, config_digest, package_versions


def test_digest_ignores_the_order_of_keys_and_sees_every_value():
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


def test_stable_part_leaves_out_time_and_memory():
    record = Provenance(versions=package_versions(), wall_time=1.0, peak_memory=2)
    stable = record.to_dict(volatile=False)
    assert not {"wall_time_s", "peak_memory_bytes"} & stable.keys()
    assert record.to_dict()["wall_time_s"] == 1.0
    assert {"python", "numpy", "neuromm"} <= stable["versions"].keys()
