"""``report.html``: a run to look at, while it goes on and when it is over."""
