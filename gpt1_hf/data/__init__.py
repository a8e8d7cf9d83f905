"""Corpora and benchmark data: from files or the Hub to what a model is fed."""
