"""Sub-models of the dense one, by channels: FedRolex and HeteroFL."""
