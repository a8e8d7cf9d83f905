"""Evaluation of models: metrics, task scores, perplexity, overlap with training data, and `results.json`."""
