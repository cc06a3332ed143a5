"""The device side: trains the experts it was sent with a gate that never leaves."""
