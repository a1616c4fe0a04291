"""The folds that every model of a unit is tested on."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from neuromm_pipelines.encode_settings import ModelSettings
    from neuromm_pipelines.encode_unit import Prepared

__all__ = ["outer_cv"]


def outer_cv(settings: "ModelSettings", prepared: "Prepared") -> Any:
    """Whole runs; contiguous blocks, with a gap between, where there is one run."""
    from neuromm.encoding import BlockedKFold, RunKFold

    responses = prepared.responses
    if len(np.unique(responses["run"].to_numpy())) > 1:
        return RunKFold(settings.folds)
    return BlockedKFold(
        settings.folds or 5,
        purge=prepared.embargo,
        onset=responses["onset"].to_numpy(),
    )
