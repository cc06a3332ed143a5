"""FedRolex and what is its own."""
