"""neuromm.kernels."""
