"""Readers of annotation files: what is on disk, checked and indexed, without any wording."""
