"""neuromm.simulate."""
