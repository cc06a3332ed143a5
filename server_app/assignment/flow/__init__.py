"""The assignment by min-cost flow: exact where sizes and loads are counts.

`exact` is the network, `sparsified` solves it on few arcs, `certified` proves it.
"""
