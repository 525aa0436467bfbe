"""Reports: a run folder as one self-contained HTML page, to send to a colleague."""

from mage.report.page import write_report as write_report
