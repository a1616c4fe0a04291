"""Readers: a file or a BIDS entry becomes a `neuromm.core.Sample`.

One module a modality, each with ``load``, ``write_example`` and ``READER``, by which
it is found; nothing heavy is imported before a file is read.
"""

from neuromm.io.reader import Reader, load, readers

__all__ = ["Reader", "load", "readers"]
