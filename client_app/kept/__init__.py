"""What a client keeps between messages."""
