"""The assignment where flow is not exact: byte sizes and data-weighted loads.

`highs` and `cp_sat` are told the same `rows`, and start from a flow's answer
(`from_flow`).
"""
