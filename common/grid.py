"""The grid that values are summed on, so that no sum hangs on an order.

The server sums replies on it (``server_app.merging.exact_sums``), and noise is a whole
number of its steps (``common.gaussian_mechanism``).
"""

GRID = 2.0**32
"""Steps to 1."""
