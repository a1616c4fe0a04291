import json
import shutil
import subprocess
import sys
from pathlib import Path

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def validate(folder: Path) -> tuple[int, list[dict]]:
    ended = subprocess.run(
        [VALIDATOR, str(folder), "--format", "json"], capture_output=True, text=True
    )
    return ended.returncode, json.loads(ended.stdout)["issues"]["issues"]


def test_the_output_passes_the_bids_validator(reported: Path):
    code, issues = validate(reported)
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert code == 0


def test_no_file_lacks_description_or_spatial_reference(reported: Path):
    _, issues = validate(reported)
    lacking = {issue["subCode"] for issue in issues if "SIDECAR" in issue["code"]}
    assert not lacking & {"Description", "SpatialReference", "Sources"}


def test_maps_and_tables_are_errors_without_the_shipped_bidsignore(
    reported: Path, tmp_path: Path
):
    bare = tmp_path / "bare"
    shutil.copytree(reported, bare)
    (bare / ".bidsignore").unlink()
    code, issues = validate(bare)
    assert code == 16
    assert any("statmap" in issue["location"] for issue in issues)
