"""Corpora and data sets: from files or the Hub to the batches of a model."""
