"""``python -m client_app.device.flower_supernode``: the SuperNode over a weak link.

Flower's own program with the same command line, a state that waits for no order in vain
(``node_state``), and a client of the Fleet API that says how far a message has come,
and that is not put off when an answer is lost: where the link breaks after a piece has
arrived and before the SuperLink has said so, the piece is sent again, the SuperLink,
which awaits it no more, refuses it, and Flower 1.41 would throw the whole reply away.

Where a run ends while an order of it is on its way down, Flower 1.41 leaves the process
that was started for the order waiting for the rest of it, with its memory, for an hour.
Here the order is given up like any other that cannot be fetched, and the process ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from client_app.device.flower_program import START_ANEW
from client_app.device.node_state import FailingNodeState
from client_app.device.superexec import SUPEREXEC
from client_app.device.transfers import Progress
from common.flower_internals import FleetHttpClient, flower_log, run_supernode


class OrderWithdrawnError(Exception):
    """The run of an order has ended before all of the order was here."""


class PatientFleetClient(FleetHttpClient):
    """Flower's client of the Fleet API, watched.

    The requests and answers are Flower's protobuf messages; see its ``fleet.proto``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._down = self._up = Progress("", "", (), flower_log)
        self._in_doubt: set[tuple[str, str]] = set()

    def GetFab(self, request: Any) -> Any:  # noqa: N802 # Flower's names
        """Fetch the app of a run, which comes in one piece."""
        flower_log("downloading the app of this run")
        return super().GetFab(request)

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        """Fetch an order without its objects."""
        SUPEREXEC.check()
        response = super().PullMessages(request)
        for tree in response.message_object_trees:
            ids = pieces(tree)
            self._down = Progress("downloading", "downloaded", ids, flower_log)
        return response

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        """Fetch one object."""
        self._down.begin()
        with _given_up():
            response = super().PullObject(request)
        if response.object_available:
            self._down.moved(request.object_id, len(response.object_content))
        return response

    def ConfirmMessageReceived(self, request: Any) -> Any:  # noqa: N802
        """Say that an order is here."""
        with _given_up():
            return super().ConfirmMessageReceived(request)

    def PushMessages(self, request: Any) -> Any:  # noqa: N802
        """Announce a reply."""
        response = super().PushMessages(request)
        self._in_doubt.clear()
        for tree in request.message_object_trees:
            ids = pieces(tree) & set(response.objects_to_push)
            self._up = Progress("uploading", "uploaded", ids, flower_log)
        return response

    def PushObject(self, request: Any) -> Any:  # noqa: N802
        """Send one object; Flower calls this again when it has failed on the way."""
        key = request.session_id, request.object_id
        self._up.begin()
        try:
            response = super().PushObject(request)
        except (httpx.TransportError, httpx.HTTPStatusError):
            self._in_doubt.add(key)
            raise
        # A session that has ended refuses the next one as well, whose fate is not in
        # doubt; and if this is the last, the server finds it missing and asks again.
        response.stored |= key in self._in_doubt
        if response.stored:
            self._up.moved(request.object_id, len(request.object_content))
        return response


@contextmanager
def _given_up() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as refused:
        if refused.response.status_code != httpx.codes.FORBIDDEN:
            raise
        # Flower makes an exception of this that is none, and tidies up after those
        # only that are.
        raise OrderWithdrawnError("its run has ended") from refused


def pieces(tree: Any) -> set[str]:
    """Return the ids of the pieces of arrays in Flower's tree of a message's objects.

    They lie deepest: a message has records, a record arrays, an array its pieces.
    """
    level, below = [tree], [*tree.children]
    while below:
        level, below = below, [child for each in below for child in each.children]
    return {each.object_id for each in level}


if __name__ == "__main__":
    run_supernode(PatientFleetClient, FailingNodeState, SUPEREXEC.start, START_ANEW)
