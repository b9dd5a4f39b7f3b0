"""The comparison of runs with each other and with the published Tables 5 and 6."""

from affectflow.report.comparison import Comparison, compare
from affectflow.report.published import LOSSES, PUBLISHED_ROWS, PublishedRow, published_row
from affectflow.report.runs import FAILED, FINISHED, ScoredRun
from affectflow.report.writing import write_comparison

__all__ = [
    "FAILED",
    "FINISHED",
    "LOSSES",
    "PUBLISHED_ROWS",
    "Comparison",
    "PublishedRow",
    "ScoredRun",
    "compare",
    "published_row",
    "write_comparison",
]
