"""Data sets with planted truth: what an analysis must find is known beforehand."""

from typing import Any

__all__ = [
    "DIXON_TISSUES",
    "BidsTruth",
    "DixonSpine",
    "EncodingDataset",
    "ImageTruth",
    "IntegrationDataset",
    "TreebankTruth",
    "make_bids_dataset",
    "make_bold5000",
    "make_brain_treebank",
    "make_dixon_spines",
    "make_encoding_dataset",
    "make_integration_dataset",
    "make_pereira",
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
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
