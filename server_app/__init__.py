"""The server side: decides who holds which expert, and merges what comes back."""
