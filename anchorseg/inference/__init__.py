"""Answers: images read once, questions packed behind them, the predictor."""
