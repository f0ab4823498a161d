"""Protocols, scorings, and the evaluation behind validation and the script."""
