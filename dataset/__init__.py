"""Data: samples, sources, prompts, mixtures and batches. Knows neither the backbones nor the method."""
