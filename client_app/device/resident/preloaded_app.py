"""An app that was imported before it was known which one the next message is of.

Flower says so only to the process of the message. Therefore modules of the app are kept
aside and given out when that process imports them, if it is of this app; one of another
app imports its own as if nothing had been there.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any


class PreloadedApp(MetaPathFinder, Loader):
    """The modules below an app's folder, imported and kept aside.

    Parameters
    ----------
    told : mapping
        What the app has told of itself: its ``folder``, the module ``app`` that Flower
        imports, and ``prepare`` (``"module:function"``), called with ``given``.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._folder = str(told["folder"])
        sys.path.insert(0, self._folder)
        importlib.import_module(told["app"])
        module, _, name = str(told["prepare"]).partition(":")
        getattr(importlib.import_module(module), name)(told["given"])
        sys.path.remove(self._folder)
        self._modules = {
            name: module
            for name, module in sys.modules.items()
            if (getattr(module, "__file__", None) or "").startswith(f"{self._folder}/")
        }
        self._specs = {name: module.__spec__ for name, module in self._modules.items()}
        for name in self._modules:
            del sys.modules[name]

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Give out everything at the first import of a package of the app."""
        if path is not None or fullname not in self._modules:
            return None
        sys.meta_path.remove(self)
        if sys.path[0] != self._folder:  # Flower puts the message's own there
            return None
        # Without what is asked for: found there, it would be executed again.
        sys.modules.update(
            (name, each) for name, each in self._modules.items() if name != fullname
        )
        return spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that is there."""
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Take back what importing has changed."""
        module.__spec__ = self._specs[module.__name__]
