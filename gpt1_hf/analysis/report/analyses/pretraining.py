"""Pre-training (Tables 2 to 4): a pre-trained model beside the same model from scratch, on all twelve tasks."""

from ..paper_tables import section


__all__ = ["section"]
