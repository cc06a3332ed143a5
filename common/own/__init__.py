"""A device's own data: reading it, and keeping it ready for the rounds.

Nothing here knows torch or Flower: ``check-data`` and ``predict`` use it offline.
"""
