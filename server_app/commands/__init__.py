"""The commands of ``python -m server_app``."""
