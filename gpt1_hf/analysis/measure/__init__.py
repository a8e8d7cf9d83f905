"""Analyses that score existing models. Each file has a dataclass `Arguments`, and a function `measure` that takes it.

A constant `REQUIRED` lists the settings that must be given; of each tuple, one is enough.
"""
