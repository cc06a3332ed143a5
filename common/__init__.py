"""What both sides of a run agree on; imports neither side."""
