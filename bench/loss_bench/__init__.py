"""Parts of bench/losses.py: forms of the losses, their measurement, tables, figure."""
