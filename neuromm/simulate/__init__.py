"""Data sets with planted truth: what an analysis must find is known beforehand."""

from typing import Any

__all__ = [
    "BidsTruth",
    "EncodingDataset",
    "IntegrationDataset",
    "make_bids_dataset",
    "make_encoding_dataset",
    "make_integration_dataset",
]

_HOMES = {
    "BidsTruth": "bids_dataset",
    "EncodingDataset": "encoding_dataset",
    "IntegrationDataset": "integration_dataset",
    "make_bids_dataset": "bids_dataset",
    "make_encoding_dataset": "encoding_dataset",
    "make_integration_dataset": "integration_dataset",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
