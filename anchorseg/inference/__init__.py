"""Answers: images prefilled once, questions packed after them, the predictor."""
