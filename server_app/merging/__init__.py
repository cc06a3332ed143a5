"""Sums and means of part vectors; arrays in, arrays out."""
