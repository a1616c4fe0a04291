"""neuromm.prepare."""
