"""Data sets with planted truth: what an analysis must find is known beforehand."""

from typing import TYPE_CHECKING

from neuromm._lazy import lazy_names

if TYPE_CHECKING:
    from neuromm.simulate.bids_dataset import BidsTruth, make_bids_dataset
    from neuromm.simulate.brain_treebank import TreebankTruth, make_brain_treebank
    from neuromm.simulate.dixon_spine import (
        DIXON_TISSUES,
        DixonSpine,
        make_dixon_spines,
    )
    from neuromm.simulate.encoding_dataset import EncodingDataset, make_encoding_dataset
    from neuromm.simulate.image_datasets import ImageTruth, make_bold5000, make_pereira
    from neuromm.simulate.integration_dataset import (
        IntegrationDataset,
        make_integration_dataset,
    )
    from neuromm.simulate.planted_tissue import PlantedSection, make_tissue_sections
    from neuromm.simulate.tissue_slides import TissueSlide, make_tissue_slides

__all__ = [
    "DIXON_TISSUES",
    "BidsTruth",
    "DixonSpine",
    "EncodingDataset",
    "ImageTruth",
    "IntegrationDataset",
    "PlantedSection",
    "TissueSlide",
    "TreebankTruth",
    "make_bids_dataset",
    "make_bold5000",
    "make_brain_treebank",
    "make_dixon_spines",
    "make_encoding_dataset",
    "make_integration_dataset",
    "make_pereira",
    "make_tissue_sections",
    "make_tissue_slides",
]

_HOMES = {
    "BidsTruth": "bids_dataset",
    "DIXON_TISSUES": "dixon_spine",
    "DixonSpine": "dixon_spine",
    "EncodingDataset": "encoding_dataset",
    "ImageTruth": "image_datasets",
    "IntegrationDataset": "integration_dataset",
    "TreebankTruth": "brain_treebank",
    "make_bids_dataset": "bids_dataset",
    "make_bold5000": "image_datasets",
    "make_brain_treebank": "brain_treebank",
    "make_dixon_spines": "dixon_spine",
    "make_encoding_dataset": "encoding_dataset",
    "make_integration_dataset": "integration_dataset",
    "make_pereira": "image_datasets",
    "PlantedSection": "planted_tissue",
    "make_tissue_sections": "planted_tissue",
    "TissueSlide": "tissue_slides",
    "make_tissue_slides": "tissue_slides",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
