"""``report.html``: a run to look at, while it goes on and when it is over."""

from server_app.report.live import LiveReport
from server_app.report.pages import comparison_page, run_page
from server_app.report.run_data import ReportError, RunData, read_run

__all__ = [
    "LiveReport",
    "ReportError",
    "RunData",
    "comparison_page",
    "read_run",
    "run_page",
]
