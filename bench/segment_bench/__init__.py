"""Parts of bench/segment.py."""
