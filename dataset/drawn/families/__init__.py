"""Layouts of the dataset families, each written from drawn pictures."""
