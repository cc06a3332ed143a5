"""What a user of the library imports: one function that runs, and the parts to compose.

Each name is loaded when it is first used: ``import expertfleet`` needs no torch. What
they are is told where they live.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.moe import ModelSpec as ModelSpec
    from common.settings import Settings as Settings
    from expertfleet.notebook import Run as Run
    from expertfleet.notebook import open_run as open_run
    from expertfleet.notebook import run as run
    from server_app.assignment import Assignment as Assignment
    from server_app.assignment import AssignmentProblem as AssignmentProblem
    from server_app.assignment import solve as solve
    from server_app.contract import Plan as Plan
    from server_app.contract import Reply as Reply
    from server_app.contract import StrategyOptions as StrategyOptions
    from server_app.contract import View as View
    from server_app.run_source import RunSource as RunSource
    from server_app.strategies import ExpertStrategy as ExpertStrategy

_HOMES = {
    "Assignment": "server_app.assignment",
    "ExpertStrategy": "server_app.strategies",
    "ModelSpec": "common.moe",
    "Plan": "server_app.contract",
    "AssignmentProblem": "server_app.assignment",
    "Reply": "server_app.contract",
    "Run": "expertfleet.notebook",
    "RunSource": "server_app.run_source",
    "Settings": "common.settings",
    "StrategyOptions": "server_app.contract",
    "View": "server_app.contract",
    "open_run": "expertfleet.notebook",
    "run": "expertfleet.notebook",
    "solve": "server_app.assignment",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("expertfleet")
    if name not in _HOMES:
        raise AttributeError(f"module 'expertfleet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
