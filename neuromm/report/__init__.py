"""neuromm.report."""
