"""What a person looks at: tables for the terminal, figures, and one self-contained HTML page."""

from jaxcompress.report.fates import Fate, fates
from jaxcompress.report.heatmaps import ablation_map
from jaxcompress.report.html import compare_page
from jaxcompress.report.plots import alignment_scores, matched_pairs
from jaxcompress.report.tables import compare_table, table

__all__ = [
    "Fate",
    "ablation_map",
    "alignment_scores",
    "compare_page",
    "compare_table",
    "fates",
    "matched_pairs",
    "table",
]
