"""Pre-training (Tables 2 to 4): a pre-trained model beside the same model from scratch, on all twelve tasks."""

from collections.abc import Sequence
from dataclasses import replace

from .. import from_scratch, paper_tables
from ..runs import CollectedRun
from ..sections import Section


def section(runs: Sequence[CollectedRun]) -> Section:
    """The paper's tables, and the table that compares the two arms, with verdicts."""
    tables, compared = paper_tables.section(runs), from_scratch.section(runs)
    return replace(tables, tables=[*tables.tables, *compared.tables], has_verdicts=compared.has_verdicts)
