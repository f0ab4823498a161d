"""Benchmarks: each prints a table and, last, one JSON object; run with `python -m benchmarks.NAME`."""
