"""The page a run is looked at on: report.html, one file that needs nothing else."""

from reserve.report.page import write_report

__all__ = ["write_report"]
