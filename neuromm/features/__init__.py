"""Feature spaces: tables of any backbone, brought to the samples of a recording."""

from neuromm.features.checked_table import feature_table
from neuromm.features.design import event_features, volume_features
from neuromm.features.exchange import read_features, write_features
from neuromm.features.table import FeatureEvents, FeatureTable

__all__ = [
    "FeatureEvents",
    "FeatureTable",
    "event_features",
    "feature_table",
    "read_features",
    "volume_features",
    "write_features",
]
