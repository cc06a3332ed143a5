"""A stranger before the documented start: a SuperLink on the loopback, nginx before it.

He has no key and does not look at the server's certificate. What he finds is Flower's
Fleet API, and there he is nobody. Where the door stands open on purpose, to prove that
he knows how to come in, he does.
"""

import base64
import datetime
import http.client
import shutil
import ssl
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import ListNodesRequest, ListNodesResponse
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from google.protobuf.message import Message

from server_app.__main__ import main
from server_app.provisioning.certificates import Key, device_key, public_openssh
from server_app.provisioning.control_api import ControlAPI
from server_app.provisioning.directory import FleetDirectory
from tests.deployment.program import Program
from tests.ports import free_port

PROTOBUF = "application/protobuf"

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx"),
]


class Door:
    """An address, as somebody without trust in it sees it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def knock(
        self, path: str, request: Message | None = None, key: Key | None = None
    ) -> tuple[int, bytes]:
        """Post a request, signed with a key if there is one."""
        headers = {"content-type": PROTOBUF, "accept": PROTOBUF}
        if key is not None:
            when = datetime.datetime.now(datetime.UTC).isoformat()
            public = public_key_to_bytes(key.public_key())
            signature = sign_message(key, when.encode())
            headers[FLEET_HTTP_PUBLIC_KEY_HEADER] = base64.b64encode(public).decode()
            headers[FLEET_HTTP_SIGNATURE_HEADER] = base64.b64encode(signature).decode()
            headers[TIMESTAMP_HEADER] = when
        body = request.SerializeToString() if request is not None else None
        return self.ask("POST", path, headers, body)

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, bytes]:
        link = self.connect()
        try:
            link.request(method, path, body or b"", headers or {})
            answer = link.getresponse()
            return answer.status, answer.read()
        finally:
            link.close()

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] > 0
        except OSError:
            return False

    def connect(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        careless = ssl._create_unverified_context()
        return http.client.HTTPSConnection(
            "127.0.0.1",
            self.port,
            timeout=30,
            context=careless,
            source_address=(source, 0),
        )


class Server:
    """The documented start, and the door strangers see."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder / "fleet"
        self.fleet = FleetDirectory(self.folder)
        # Devices connect to "fleet.example", which is the proxy of this machine.
        public, inner = free_port(), free_port()
        self.outside, self.inside = Door(public), Door(inner)
        self.provision("init", "--host", "fleet.example")
        self.provision("init", "--superlink", f"fleet.example:{public}")
        self.provision("init", "--control", f"127.0.0.1:{inner}")
        self.link = Program("superlink", self._unit("superlink", folder), stack)
        self.proxy = Program("nginx", self._unit("proxy", folder), stack)

    def provision(self, *arguments: str, code: int = 0) -> None:
        assert main(["fleet", "--dir", str(self.folder), *arguments]) == code

    def _unit(self, name: str, state: Path) -> list[str]:
        """The command of a generated unit, without the systemd around it."""
        text = (self.folder / f"systemd/expertfleet-{name}.service").read_text()
        [line] = [
            line
            for line in text.replace("\\\n", " ").splitlines()
            if line.startswith("ExecStart=")
        ]
        words = line.removeprefix("ExecStart=").split()
        places = {"%d": str(self.folder), "%S/expertfleet-superlink": str(state)}
        for short, path in places.items():
            words = [word.replace(short, path) for word in words]
        return words

    def up(self) -> None:
        for program, door in ((self.link, self.inside), (self.proxy, self.outside)):
            program.start()
            until(door.answers, program)


def until(condition: Callable[[], bool], program: Program) -> None:
    for _ in range(600):
        if condition():
            return
        assert program.running, program.tail()
        time.sleep(0.2)
    pytest.fail(program.tail())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ExitStack() as stack:
        server = Server(tmp_path_factory.mktemp("stranger"), stack)
        server.up()
        yield server
        server.proxy.stop()  # nginx hides what it was started with, and from whom


CLOSED = [
    *("/v1/control/list-nodes", "/v1/control/start-run", "/v1/control/register-node"),
    *("/v1/runtime/acquire-task", "/v1/runtime/get-nodes", "/v1/runtime/push-messages"),
    *("/health", "/docs", "/openapi.json", "/", "/v1/fleet/", "/v1/fleet"),
    # The same by other ways of writing.
    *("/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes"),
    *("/v1/fleet/..%2fcontrol/list-nodes", "//v1/control/list-nodes"),
    *(
        "/v1/control/list-nodes/../../fleet/get-run",
        "/v1/fleet/x/../../control/start-run",
    ),
    *("/v1/control/list-nodes?/v1/fleet/get-run", "/V1/fleet/get-run"),
    *("/v1/control/list-nodes%3f/../../../v1/fleet/get-run", "/v1/fleet/get-run?x=1"),
    *("/v1/control/list-nodes;/../../fleet/get-run", "/v1/fleet/get-run%0d%0aX: y"),
]


def test_behind_the_proxy_is_the_fleet_api_and_nothing_else(server: Server) -> None:
    for path in CLOSED:
        for method in ("POST", "GET"):
            status, body = server.outside.ask(
                method, path.replace(" ", "%20"), {"content-type": PROTOBUF}
            )
            assert status == 404, (method, path, status)
            assert b"nginx" in body  # refused by the proxy, not asked behind it
    assert server.outside.ask("GET", "/v1/fleet/get-run")[0] == 404
    # He would have known how: the same request at the SuperLink itself is answered.
    status, body = server.inside.knock("/v1/control/list-nodes", ListNodesRequest())
    assert status == 200
    ListNodesResponse.FromString(body)


def test_a_key_that_nobody_registered_opens_nothing(server: Server) -> None:
    key = device_key()
    public = public_key_to_bytes(key.public_key())
    for path, request in (
        ("register-node", RegisterNodeFleetRequest(public_key=public)),
        ("activate-node", ActivateNodeRequest(public_key=public)),
        ("pull-messages", PullMessagesRequest()),
    ):
        for signed in (None, key):
            status, body = server.outside.knock(f"/v1/fleet/{path}", request, signed)
            assert 400 <= status < 500, (path, status, body)
            assert b"nginx" not in body  # the SuperLink has said it
    with ControlAPI(
        server.fleet.members().control, server.fleet.authority_file
    ) as control:
        assert control.nodes() == []


def test_who_is_not_superexec_gets_no_task_of_the_superlink(server: Server) -> None:
    status, body = server.inside.knock("/v1/runtime/acquire-task", AcquireTaskRequest())
    assert status == 401, body
    status, body = server.inside.knock("/v1/runtime/get-nodes", GetNodesRequest())
    assert status == 401, body


def test_a_removed_device_is_a_stranger(server: Server) -> None:
    server.provision("add", "pi0")
    key = _key_of(server, "pi0")
    request = ActivateNodeRequest(
        public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30
    )
    status, body = server.outside.knock("/v1/fleet/activate-node", request, key)
    assert status == 200, body
    assert ActivateNodeResponse.FromString(body).node_id
    server.provision("remove", "pi0")
    status, body = server.outside.knock("/v1/fleet/activate-node", request, key)
    assert 400 <= status < 500, body
    assert b"nginx" not in body


def test_a_second_node_of_a_device_s_name_is_refused_and_said(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    control = server.fleet.members().control
    with ControlAPI(control, server.fleet.authority_file) as api:
        api.register("pi7", public_openssh(device_key()).decode())
        [stranger] = api.nodes()
    server.provision("add", "pi7", code=2)
    assert f"node {stranger.node_id} has the name 'pi7'" in capsys.readouterr().err
    server.provision("list")
    assert f"stranger: node {stranger.node_id}" in capsys.readouterr().out
    with ControlAPI(control, server.fleet.authority_file) as api:
        api.unregister_node(stranger.node_id)
    server.provision("register")
    server.provision("remove", "pi7")


def test_one_address_cannot_hold_the_door(server: Server) -> None:
    def one_more(source: str = "127.0.0.1") -> int:
        link = server.outside.connect(source)
        try:
            body = GetRunRequest().SerializeToString()
            link.request("POST", "/v1/fleet/get-run", body, {"content-type": PROTOBUF})
            return link.getresponse().status
        finally:
            link.close()

    held = []
    try:
        for _ in range(64):
            link = server.outside.connect()
            link.putrequest("POST", "/v1/fleet/push-object")
            link.putheader("content-length", "100")
            link.endheaders()  # and never a body
            held.append(link)
        until(lambda: one_more() == 503, server.proxy)
        assert one_more("127.0.0.2") == 401  # another address is not kept waiting
    finally:
        for link in held:
            link.close()
    until(lambda: one_more() == 401, server.proxy)


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    headers = {"content-type": PROTOBUF, "content-length": str(64 * 2**20)}
    status, _ = server.outside.ask("POST", "/v1/fleet/push-object", headers)
    assert status == 413


def _key_of(server: Server, name: str) -> Key:
    with tarfile.open(server.fleet.bundle_file(name)) as tar:
        file = tar.extractfile("supernode.key")
        assert file is not None
        key = load_ssh_private_key(file.read(), password=None)
    assert isinstance(key, Key)
    return key
