"""What a client is told with a message, and where it keeps things."""

from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from client_app.kept.home import Home


def context_of(
    node: dict[str, Any] | None = None, run: dict[str, Any] | None = None
) -> Context:
    """Return a message's context, by the configurations of its node and its run."""
    return Context(
        run_id=1,
        node_id=1,
        node_config=node or {},
        state=RecordDict(),
        run_config=run or {},
    )


def home_of(folder: Path | str = "", client: str = "client-0") -> Home:
    """Return a home below a directory, or a new one in memory."""
    return Home(context=context_of(), client=client, folder=str(folder))
