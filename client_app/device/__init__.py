"""What this device is, and what it allows."""
