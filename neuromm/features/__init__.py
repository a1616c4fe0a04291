"""neuromm.features."""
