"""Runs of many settings and seeds: what is run, by whom, and what came of it."""
