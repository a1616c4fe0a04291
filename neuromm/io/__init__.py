"""Readers: a file or a BIDS entry becomes a `neuromm.core.Sample`."""
