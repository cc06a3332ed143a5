"""The settings: frozen, typed, and the only place that checks user input."""

from common.errors import SettingsError
from common.settings.tree import Settings, explain

__all__ = ["Settings", "SettingsError", "explain"]
