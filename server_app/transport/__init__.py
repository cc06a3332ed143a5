"""Messages to nodes and back, over lines and servers that fail."""
