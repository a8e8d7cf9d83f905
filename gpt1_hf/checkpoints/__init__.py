"""Checkpoints: loading, adapters, conversion, export and quantization."""
