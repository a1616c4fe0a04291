"""Checks a BIDS folder with the BIDS validator, where it is installed."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from neuromm.core import DataError

__all__ = ["validate"]

logger = logging.getLogger(__name__)

_PROGRAM = "bids-validator-deno"


def validate(bids_dir: Path) -> None:
    """Raise the validator's errors; warn once where it is not installed.

    Raises
    ------
    DataError
        If the validator reports errors; the message lists the first of them.
    """
    beside = Path(sys.executable).with_name(_PROGRAM)
    program = str(beside) if beside.exists() else shutil.which(_PROGRAM)
    if program is None:
        logger.warning(
            "the BIDS validator is not installed and the input was not checked: "
            'pip install "neuromm[validate]", or --skip-bids-validation'
        )
        return
    result = subprocess.run(
        [program, "--format", "json", str(bids_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        issues = json.loads(result.stdout)["issues"]["issues"]
    except (json.JSONDecodeError, KeyError, TypeError):
        logger.warning("the BIDS validator gave no result: %s", result.stderr[-500:])
        return
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    if errors:
        shown = "; ".join(
            f"{issue.get('code')} {issue.get('location', '')}".strip()
            for issue in errors[:5]
        )
        raise DataError(
            f"the BIDS validator finds {len(errors)} errors: {shown}. Mend them, or go "
            "on with --skip-bids-validation.",
            bids_dir,
        )
