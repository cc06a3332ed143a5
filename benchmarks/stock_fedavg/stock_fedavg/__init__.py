"""A plain Flower app to compare with."""
