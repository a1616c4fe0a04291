"""The files that make an output folder of `neuromm segment` a derivative dataset."""

from collections.abc import Mapping
from pathlib import Path

from neuromm.report.dataset import Contents, prepare_output

__all__ = ["REFERENCES", "prepare_segmentation"]

REFERENCES = (
    "Dolz J, Desrosiers C, Ben Ayed I (2018). IVD-Net: Intervertebral disc "
    "localization and segmentation in MRI with a multi-modal UNet. MICCAI "
    "workshop CSI, arXiv:1811.08305.",
    "Guo C et al. (2017). On calibration of modern neural networks. ICML.",
    "Wang G et al. (2019). Aleatoric uncertainty estimation with test-time "
    "augmentation for medical image segmentation with convolutional neural networks. "
    "Neurocomputing 338, 34-45.",
    "Zheng G et al. (2017). Evaluation and comparison of 3D intervertebral disc "
    "localization and segmentation methods for 3D T2 MR data: A grand challenge. "
    "Medical Image Analysis 35, 327-344.",
)

_README = """\
Intervertebral discs, segmented by neuromm
==========================================

Research use only: not a medical device, not for diagnosis or treatment.

sub-XX.html                        report; open it in a browser, no network needed
sub-XX/**/*_desc-disc_dseg         discs on the grid of the scan: 1 is the lowest disc
                                   that was found, 2 the next above it (.nii.gz); names
                                   (.tsv); how they were found (.json)
sub-XX/**/*_desc-disc_probseg      probability of disc
sub-XX/**/*_stat-entropy_desc-disc_statmap
                                   uncertainty: 0 sure, 1 does not know
sub-XX/**/*_desc-disc_regions      centres (RAS, mm) and volumes (mm3) of the discs
sub-XX/**/*_desc-disc_scores       distance from a reference, where there is one
sub-XX/figures/                    the pictures of the report, with their numbers
descriptions.tsv                   what each desc- label means
logs/CITATION.md                   what to cite

A number is a rank from below, not an anatomical level: it names L5/S1 as 1 only where
that disc is in the scan and was found.
"""

_LISTED = "\n".join(f"- {reference}" for reference in REFERENCES)

SEGMENTATION = Contents(
    name="segmentation",
    description="Segmentation of intervertebral discs in MRI by a neural network",
    readme=_README,
    citation=f"# What to cite\n\n{_LISTED}\n",
    ignored=(
        "*_statmap.*",
        "*_scores.*",
        "*_regions.*",
        "sub-*.html",
        "segmentation.html",
        "segmentation.tsv",
        "segmentation.json",
        "figures",
        "logs",
        "work",
        ".neuromm",
        "*.tmp-*",
    ),
    labels={
        "disc": "Intervertebral discs, as a network segmented them",
        "classes": "All classes of a network that tells more than discs",
    },
)


def prepare_segmentation(
    root: str | Path,
    source: str | Path,
    derivative_links: Mapping[str, str | Path] | None = None,
) -> None:
    """Write or complete the dataset-level files of an output folder of segmentations.

    Parameters
    ----------
    root : path-like
        Output folder, made if missing.
    source : path-like
        Folder of the scans, BIDS or not; ``bids:raw:…`` in Sources.
    derivative_links : mapping of str to path-like, optional
        Further datasets that were read, by their name in BIDS URIs.

    Raises
    ------
    neuromm.core.UsageError
        If ``root`` is the source or holds a raw dataset.
    neuromm.core.OutputError
        If a file cannot be written.
    """
    prepare_output(root, source, derivative_links, contents=SEGMENTATION)
