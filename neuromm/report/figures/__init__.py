"""Pictures of encoding scores, as PNG bytes that are equal for equal scores."""

from neuromm.report.figures.canvas import Picture
from neuromm.report.figures.contacts import contact_map, contact_strips
from neuromm.report.figures.scores import score_histograms
from neuromm.report.figures.surfaces import surface_map, volume_on_surface
from neuromm.report.figures.time_courses import score_time_courses
from neuromm.report.figures.topography import sensor_topography
from neuromm.report.figures.volumes import glass_brain, mosaic

__all__ = [
    "Picture",
    "contact_map",
    "contact_strips",
    "glass_brain",
    "mosaic",
    "score_histograms",
    "score_time_courses",
    "sensor_topography",
    "surface_map",
    "volume_on_surface",
]
