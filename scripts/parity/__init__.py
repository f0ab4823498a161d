"""Parity: does this project compute the published implementation's numbers? `python -m scripts.parity DIR` tells."""
