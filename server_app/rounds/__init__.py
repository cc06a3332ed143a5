"""The round: what is sent, what is accepted, what is remembered of it."""
