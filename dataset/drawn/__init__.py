"""Drawn scenes with exact masks and reasoning queries, written in ReasonSeg's own format."""
