"""The directory of a run: what of it must not be lost."""
