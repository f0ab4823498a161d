"""Drawn scenes with exact masks, and what is asked about them, written in the layouts of the real datasets."""
