"""Reports: one self-contained HTML page for a run folder."""

from mage.report.page import write_report as write_report
