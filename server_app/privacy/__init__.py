"""How much of the privacy budget is spent; the noise is ``merging.noisy_sums``'s."""
