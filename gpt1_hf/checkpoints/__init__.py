"""Checkpoints: loading them, adapters, and their other forms."""
