"""Replies over HTTP: read no further than a reply of their kind can reach.

Flower's own ``pull_messages`` reads whatever a device has pushed, believes the address
that the device wrote into its message, and ends in an exception if one message cannot
be put together: with it go the replies pulled beside it, and the run. Here each message
is read by itself, in 1.41's steps: what is too large is given up before its bytes are
taken in, and what cannot be read is an error reply of its sender.
"""

import json
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import httpx
from flwr.app import Error, Message, Metadata, RecordDict

from common.flower_internals import (
    ConfirmMessageReceivedRequest,
    ErrorCode,
    ObjectPullError,
    ObjectTree,
    ProtoMessage,
    PullAppMessagesRequest,
    inflate_object_from_contents,
    iterate_object_tree,
    make_message,
    make_pull_object_fn_protobuf,
    metadata_from_proto,
    pull_objects,
)
from common.flower_internals import (
    get_object_head_values_from_object_content as head_of,
)

if TYPE_CHECKING:
    from common.flower_internals import HttpGrid
from common.text import first_line

ENVELOPE_BYTES = 64 * 1024
"""What Flower adds to a message at most, beside a thousandth of it."""

SMALLEST_OBJECT = 128
"""Bytes of what is allowed that stand for one object: their names are read first."""


class TooLargeError(ValueError):
    """A reply is larger than one of its kind can be."""


class _Room:
    """What may still be read of one message."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = most + most // 1000 + ENVELOPE_BYTES

    def take(self, size: int) -> None:
        self.check(size)
        self.left -= size

    def check(self, size: int) -> None:
        if size > self.left:
            raise TooLargeError(f"reply of more than {self.most} bytes")


class BoundedPull:
    """Pulls the replies of one ``HttpGrid``.

    Parameters
    ----------
    grid : HttpGrid
    """

    def __init__(self, grid: "HttpGrid") -> None:
        self._grid = grid
        self._of_thread = threading.local()
        self._watched: httpx.Client | None = None

    def __call__(
        self, message_ids: Iterable[str], most: Callable[[str], int]
    ) -> list[Message]:
        """Return the replies that are there.

        Parameters
        ----------
        message_ids : iterable of str
        most : callable
            Given the id of the message sent, the most bytes of its reply's content.
        """
        client = self._grid._runtime_client
        if self._watched is not client._client:
            self._watched = client._client
            self._watched.event_hooks["response"].append(self._look)
        found = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        pairs = zip(found.messages_list, found.message_object_trees, strict=True)
        return [
            self._read(proto, tree, most(proto.metadata.reply_to_message_id))
            for proto, tree in pairs
        ]

    def _look(self, response: httpx.Response) -> None:
        """Look at how long an answer is before it is read."""
        room: _Room | None = getattr(self._of_thread, "room", None)
        if room is not None:
            room.check(int(response.headers.get("content-length", 0)))

    def _read(self, proto: ProtoMessage, tree: ObjectTree, most: int) -> Message:
        about = metadata_from_proto(proto.metadata)
        if proto.HasField("error"):
            self._received(about)
            return _error(about, proto.error.code, proto.error.reason)
        try:
            contents = self._contents(tree, most)
        except ObjectPullError as error:
            reason = f"the upload of the reply did not finish: {error}"
            return _error(about, ErrorCode.MESSAGE_UNAVAILABLE, reason)
        except TooLargeError as error:
            self._received(about)
            return _error(about, 0, str(error))
        self._received(about)
        try:
            _check_expanded(contents, most)
            inflated: Any = inflate_object_from_contents(tree.object_id, contents)
            content = inflated.content
            if not isinstance(content, RecordDict):
                raise TypeError("no records")
            # The device wrote the rest of the message; this is what SuperLink knows.
            return make_message(metadata=about, content=content)
        except Exception as error:  # whatever bytes can make of Flower's readers
            reason = f"reply cannot be read: {type(error).__name__}: {error}"
            return _error(about, 0, reason)

    def _contents(self, tree: ObjectTree, most: int) -> dict[str, bytes]:
        room = _Room(most)
        ids = list(dict.fromkeys(each.object_id for each in iterate_object_tree(tree)))
        room.check(SMALLEST_OBJECT * len(ids))
        fetch = make_pull_object_fn_protobuf(
            pull_object_protobuf=self._grid._runtime_client.PullObject,
            node=self._grid.node,
            run_id=self._grid.run.run_id,
        )

        def pull(object_id: str) -> bytes:
            self._of_thread.room = room
            try:
                content = fetch(object_id)
            finally:
                self._of_thread.room = None
            room.take(len(content))
            return content

        return pull_objects(ids, pull)

    def _received(self, about: Metadata) -> None:
        """Have the SuperLink forget a reply."""
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node,
                run_id=self._grid.run.run_id,
                message_object_id=about.message_id,
            )
        )


def _error(about: Metadata, code: int, reason: str) -> Message:
    return make_message(metadata=about, error=Error(code, first_line(reason)))


def _check_expanded(contents: dict[str, bytes], most: int) -> None:
    """Refuse arrays that name one chunk so often that they grow out of bounds."""
    room = _Room(most)
    for content in contents.values():
        kind, children, _ = head_of(content)
        if kind == "Array":
            body = json.loads(content[content.index(b"\0") + 1 :])
            for chunk in body["arraychunk_ids"]:
                room.take(len(contents[children[chunk]]))
