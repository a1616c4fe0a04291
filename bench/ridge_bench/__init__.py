"""Parts of bench/ridge.py."""
