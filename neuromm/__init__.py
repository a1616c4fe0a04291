"""neuromm: brain encoding and multimodal models from recordings as they lie on disk.

Research use only: not a medical device, not for diagnosis or treatment.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("neuromm")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
