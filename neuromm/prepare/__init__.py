"""Samples become aligned rows: responses, designs, and the spaces they lie in."""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

# Light, and read at once: these functions share their names with their modules, which
# would otherwise take their place here as soon as anybody imports the module.
from neuromm.prepare.delay import delay, valid_rows
from neuromm.prepare.time_bins import bin_times, time_bins

if TYPE_CHECKING:
    from neuromm.prepare.bold import bold_responses
    from neuromm.prepare.contact_space import ContactSpace
    from neuromm.prepare.epochs import (
        epoch_responses,
        event_epochs,
        event_responses,
    )
    from neuromm.prepare.filters import band_pass, high_gamma, notch
    from neuromm.prepare.hemodynamics import (
        convolve_events,
        convolve_samples,
        frame_times,
        volume_means,
    )
    from neuromm.prepare.reference import rereference
    from neuromm.prepare.sagittal import SagittalOrder
    from neuromm.prepare.sensor_space import SensorSpace
    from neuromm.prepare.surface_space import SurfaceSpace
    from neuromm.prepare.treebank import treebank_responses
    from neuromm.prepare.voxel_space import VoxelSpace

__all__ = [
    "ContactSpace",
    "SagittalOrder",
    "SensorSpace",
    "SurfaceSpace",
    "VoxelSpace",
    "band_pass",
    "bin_times",
    "bold_responses",
    "convolve_events",
    "convolve_samples",
    "delay",
    "epoch_responses",
    "event_epochs",
    "event_responses",
    "frame_times",
    "high_gamma",
    "notch",
    "rereference",
    "time_bins",
    "treebank_responses",
    "valid_rows",
    "volume_means",
]

_MODULES = {
    "ContactSpace": "contact_space",
    "SagittalOrder": "sagittal",
    "SensorSpace": "sensor_space",
    "SurfaceSpace": "surface_space",
    "VoxelSpace": "voxel_space",
    "band_pass": "filters",
    "bold_responses": "bold",
    "convolve_events": "hemodynamics",
    "convolve_samples": "hemodynamics",
    "epoch_responses": "epochs",
    "event_epochs": "epochs",
    "event_responses": "epochs",
    "frame_times": "hemodynamics",
    "high_gamma": "filters",
    "notch": "filters",
    "rereference": "reference",
    "treebank_responses": "treebank",
    "volume_means": "hemodynamics",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
