"""Parts of ``bench/express.py``."""
