"""What was found, as others can use it: BIDS derivatives, figures, HTML.

Everything is loaded on first use, so that the command line starts without matplotlib.
"""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.report.dataset import bids_uri, prepare_output
    from neuromm.report.derivatives import write_unit
    from neuromm.report.expression import write_expression_page
    from neuromm.report.expression_scores import ExpressionSectionScores
    from neuromm.report.expression_summary import write_expression_summary
    from neuromm.report.group import write_group_maps
    from neuromm.report.html import write_group_report, write_subject_report
    from neuromm.report.methods import methods_text
    from neuromm.report.naming import bids_name, contrast_label
    from neuromm.report.predictions import write_predictions
    from neuromm.report.segmentation import write_segment_report
    from neuromm.report.segmentation_dataset import prepare_segmentation
    from neuromm.report.segmentation_derivatives import write_segmentation
    from neuromm.report.segmentation_summary import write_segment_summary
    from neuromm.report.site_derivatives import write_sites
    from neuromm.report.units import read_units

__all__ = [
    "ExpressionSectionScores",
    "bids_name",
    "bids_uri",
    "contrast_label",
    "methods_text",
    "prepare_output",
    "prepare_segmentation",
    "read_units",
    "write_expression_page",
    "write_expression_summary",
    "write_group_maps",
    "write_group_report",
    "write_predictions",
    "write_segment_report",
    "write_segment_summary",
    "write_segmentation",
    "write_sites",
    "write_subject_report",
    "write_unit",
]

_HOME = {
    "ExpressionSectionScores": "expression_scores",
    "bids_name": "naming",
    "bids_uri": "dataset",
    "contrast_label": "naming",
    "methods_text": "methods",
    "prepare_output": "dataset",
    "prepare_segmentation": "segmentation_dataset",
    "read_units": "units",
    "write_expression_page": "expression",
    "write_expression_summary": "expression_summary",
    "write_group_maps": "group",
    "write_group_report": "html",
    "write_predictions": "predictions",
    "write_segment_report": "segmentation",
    "write_segment_summary": "segmentation_summary",
    "write_segmentation": "segmentation_derivatives",
    "write_sites": "site_derivatives",
    "write_subject_report": "html",
    "write_unit": "derivatives",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
