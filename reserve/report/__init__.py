"""report.html: a run's results as one self-contained page."""

from reserve.report.page import write_report

__all__ = ["write_report"]
