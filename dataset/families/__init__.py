"""Families: one source, and where there is one its benchmark, for each format."""
