"""The commands of ``python -m client_app``."""
