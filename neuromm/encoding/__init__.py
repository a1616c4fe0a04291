"""neuromm.encoding."""
