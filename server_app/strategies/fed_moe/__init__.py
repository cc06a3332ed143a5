"""Fed-MoE and what is its own."""
