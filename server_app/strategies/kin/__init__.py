"""KIN (ours): the strategy, and who belongs to which of its groups."""
