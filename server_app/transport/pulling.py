"""Replies over HTTP: read no further than a reply of their kind can reach.

Flower's own ``pull_messages`` reads whatever a device has pushed, believes the address
that the device wrote into its message, and ends in an exception if one message cannot
be put together: with it go the replies pulled beside it, and the run. Here each message
is read by itself, in 1.41's steps: what is too large is given up before its bytes are
taken in, and what cannot be read is an error reply of its sender.

A reply is listed, once, as soon as its device has announced it, which over a slow link
is minutes before its last object. Flower's own waits for that; here the others' replies
are read meanwhile, and nothing of it is kept in memory until it is all there.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from flwr.app import Error, Message, Metadata, RecordDict

from common.flower_internals import (
    ConfirmMessageReceivedRequest,
    ErrorCode,
    ObjectPullError,
    ObjectTree,
    ObjectUnavailableError,
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


LOOK_SECONDS = 0.5
"""Between two looks at whether the next object of a reply has come."""


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


class _NotYetError(Exception):
    """An object has been announced and has not come."""


@dataclass(kw_only=True)
class _Arriving:
    """A reply that a device has announced.

    Attributes
    ----------
    proto, tree
        What the SuperLink has listed.
    ids : list of str
        Of its objects, in the order a device sends them.
    next : int
        Those before it are there, as far as it was looked; all of them at first sight.
    look_at : float
        When to look again, on the monotonic clock.
    """

    proto: ProtoMessage
    tree: ObjectTree
    ids: list[str]
    next: int
    look_at: float = 0.0


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
        self._arriving: dict[str, _Arriving] = {}

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
        wanted = list(message_ids)
        # One that was listed is listed no more.
        if new := [each for each in wanted if each not in self._arriving]:
            found = client.PullMessages(PullAppMessagesRequest(message_ids=new))
            for proto, tree in zip(
                found.messages_list, found.message_object_trees, strict=True
            ):
                ids = [each.object_id for each in iterate_object_tree(tree)]
                ids = list(dict.fromkeys(ids))
                self._arriving[proto.metadata.reply_to_message_id] = _Arriving(
                    proto=proto, tree=tree, ids=ids, next=len(ids)
                )
        replies = []
        for message_id in wanted:
            reply = self._arriving.get(message_id)
            if reply is None or reply.look_at > time.monotonic():
                continue
            read = self._read(reply, most(message_id))
            if read is None:
                reply.look_at = time.monotonic() + LOOK_SECONDS
                continue
            del self._arriving[message_id]
            replies.append(read)
        return replies

    @property
    def arriving(self) -> Set[str]:
        """Ids of the messages whose replies have been announced and are on the way."""
        return self._arriving.keys()

    def _look(self, response: httpx.Response) -> None:
        """Look at how long an answer is before it is read."""
        room: _Room | None = getattr(self._of_thread, "room", None)
        if room is not None:
            room.check(int(response.headers.get("content-length", 0)))

    def _read(self, reply: _Arriving, most: int) -> Message | None:
        """Return a reply, None if it is not all there."""
        proto, tree = reply.proto, reply.tree
        about = metadata_from_proto(proto.metadata)
        if proto.HasField("error"):
            self._received(about)
            return _error(about, proto.error.code, proto.error.reason)
        try:
            contents = self._contents(reply, most)
        except _NotYetError:
            return None
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

    def _contents(self, reply: _Arriving, most: int) -> dict[str, bytes]:
        room = _Room(most)
        room.check(SMALLEST_OBJECT * len(reply.ids))
        fetch = make_pull_object_fn_protobuf(
            pull_object_protobuf=self._grid._runtime_client.PullObject,
            node=self._grid.node,
            run_id=self._grid.run.run_id,
        )

        def pull(object_id: str, room: _Room = room) -> bytes:
            self._of_thread.room = room
            try:
                content = fetch(object_id)
            except ObjectUnavailableError:
                reply.next = reply.ids.index(object_id)
                raise _NotYetError from None
            finally:
                self._of_thread.room = None
            room.take(len(content))
            return content

        while reply.next < len(reply.ids):
            pull(reply.ids[reply.next], _Room(most))
            reply.next += 1
        return pull_objects(reply.ids, pull)

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
