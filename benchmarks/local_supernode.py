"""What of a SuperNode a message's process talks to: one message, and its reply.

Flower's own needs a SuperLink and looks for work every few seconds; this one answers at
once. Used by ``benchmarks.resident`` and by the tests of what is resident.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from flwr.app import Context, Message, RecordDict

from common.flower_internals import (
    Fab,
    TaskIdentity,
    build_fab_from_disk,
    context_to_proto,
    fab_to_proto,
    get_all_nested_objects,
    get_metadata_from_config,
    get_object_tree,
    inflate_object_from_contents,
    iterate_object_tree,
    message_pb2,
    message_to_proto,
    run_to_proto,
    runtime_pb2,
)
from common.flower_internals import Run as FlowerRun
from server_app.launcher.app_folder import app_folder

NODE = 7
ROOT = Path(__file__).resolve().parents[1]


class LocalSuperNode:
    """A Runtime API with one message at a time.

    Parameters
    ----------
    app : Path
        The app that messages are for.

    Attributes
    ----------
    address : str
        HOST:PORT, without TLS.
    node_config : dict
        Of every message.
    running : Event
        Set while a message is at work: from its being fetched to its reply.
    reply : Message or None
        To the last message, whose process has ended its task.
    failure : str
        What that process said of its task, "" if it completed it.
    """

    def __init__(self, app: Path = ROOT) -> None:
        self.node_config: dict[str, Any] = {"partition-id": 0, "num-partitions": 4}
        self.running = Event()
        self.reply: Message | None = None
        self.failure = ""
        self._stop = False
        self._replied: dict[str, bytes] = {}
        self._replied_id = ""
        self.change_app(app)
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = node.answer(self.path.rpartition("/")[2], body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def change_app(self, app: Path) -> None:
        """Have the next messages be for another app."""
        with TemporaryDirectory() as room:  # .venv would be walked through otherwise
            fab = build_fab_from_disk(app_folder(app, Path(room)))
        with (app / "pyproject.toml").open("rb") as file:
            self._metadata = get_metadata_from_config(tomllib.load(file))
        self._fab = Fab(hashlib.sha256(fab).hexdigest(), fab, {})

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(
        self,
        content: RecordDict,
        kind: str,
        run_config: Mapping[str, Any],
        run: int = 1,
    ) -> None:
        """Lay a message out for whoever asks next."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run, 0
        message = Message(content, NODE, kind)
        message.metadata.__dict__["_message_id"] = message.object_id
        self._run, self._run_config = run, dict(run_config)
        self._tree = get_object_tree(message)
        self._objects = {
            name: item.deflate()
            for name, item in get_all_nested_objects(message).items()
        }
        message.metadata.__dict__["_content"] = None
        self._message = message
        self.reply, self.failure, self._replied = None, "", {}
        self._stop = False

    def stop_task(self) -> None:
        """Say at the next sign of life that the task is not wanted any more."""
        self._stop = True

    def answer(self, path: str, body: bytes) -> bytes:
        """Answer one request."""
        method = getattr(self, f"_{path.replace('-', '_')}")
        return bytes(method(body).SerializeToString())

    def _send_task_heartbeat(self, body: bytes) -> Any:
        return runtime_pb2.SendTaskHeartbeatResponse(success=not self._stop)

    def _pull_task_input(self, body: bytes) -> Any:
        run = FlowerRun.create_empty(run_id=self._run)
        run.fab_id, run.fab_version = self._metadata
        run.fab_hash = self._fab.hash_str
        context = Context(
            run_id=self._run,
            node_id=NODE,
            node_config=self.node_config,
            state=RecordDict(),
            run_config=self._run_config,
        )
        self.running.set()
        return runtime_pb2.PullTaskInputResponse(
            context=context_to_proto(context),
            run=run_to_proto(run),
            fab=fab_to_proto(self._fab),
            task_id=1,
        )

    def _pull_messages(self, body: bytes) -> Any:
        return runtime_pb2.PullAppMessagesResponse(
            messages_list=[message_to_proto(self._message)],
            message_object_trees=[self._tree],
        )

    def _pull_object(self, body: bytes) -> Any:
        wanted = message_pb2.PullObjectRequest.FromString(body).object_id
        return message_pb2.PullObjectResponse(
            object_found=True,
            object_available=True,
            object_content=self._objects[wanted],
        )

    def _confirm_message_received(self, body: bytes) -> Any:
        return message_pb2.ConfirmMessageReceivedResponse()

    def _push_messages(self, body: bytes) -> Any:
        request = runtime_pb2.PushAppMessagesRequest.FromString(body)
        [tree] = request.message_object_trees
        self._replied_id = tree.object_id
        return runtime_pb2.PushAppMessagesResponse(
            message_ids=[tree.object_id],
            objects_to_push=[each.object_id for each in iterate_object_tree(tree)],
            session_id="1",
        )

    def _push_object(self, body: bytes) -> Any:
        request = message_pb2.PushObjectRequest.FromString(body)
        self._replied[request.object_id] = request.object_content
        return message_pb2.PushObjectResponse(stored=True)

    def _push_task_output(self, body: bytes) -> Any:
        request = runtime_pb2.PushTaskOutputRequest.FromString(body)
        self.failure = request.details
        if self._replied:
            reply = inflate_object_from_contents(self._replied_id, self._replied)
            assert isinstance(reply, Message)
            self.reply = reply
        self.running.clear()
        return runtime_pb2.PushTaskOutputResponse()
