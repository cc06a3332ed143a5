"""What the server is started from, and who is told that a door is open.

That the real programs keep strangers out is tried in ``tests/deployment``.
"""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from flwr.supercore.fab import Fab
from flwr.superlink.servicer.control.control_handlers import _format_verification
from flwr.supernode.cli.flower_supernode import (
    _try_obtain_trusted_entities,
    _validate_public_keys_ed25519,
)
from flwr.supernode.start_client_internal import _verify_fab

from common.flower_internals import NodeInfo
from server_app.__main__ import main
from server_app.provisioning import ProvisioningError, apps, exposure
from server_app.provisioning.actions import register
from server_app.provisioning.certificates import app_key, device_key, public_openssh
from server_app.provisioning.control_api import ControlAPI
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.exposure import open_addresses
from server_app.provisioning.members import Members
from server_app.provisioning.server_files import UNITS, loopback, server_files
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


def members(**changed: str) -> Members:
    fields = {
        "superlink": "fleet.example:8000",
        "control": "127.0.0.1:8001",
        "apps": "127.0.0.1:8002",
        **changed,
    }
    return Members(hosts=("fleet.example",), size=3, **fields)


def written(found: Members) -> dict[str, str]:
    return {name: text.decode() for name, text in server_files(found, Path("/f"))}


def test_devices_and_the_superlink_have_different_ports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(name: str, *more: str) -> int:
        return main(["fleet", "--dir", str(tmp_path / name), "init", *more])

    assert init("plain", "--host", "fleet.example") == 0
    found = FleetDirectory(tmp_path / "plain").members()
    assert found.superlink == "fleet.example:8000"
    assert (found.control, found.apps) == ("127.0.0.1:8001", "127.0.0.1:8002")
    assert init("home", "--host", "127.0.0.1", "--superlink", "127.0.0.1:65535") == 0
    found = FleetDirectory(tmp_path / "home").members()
    assert (found.superlink, found.control) == ("127.0.0.1:65535",) * 2
    capsys.readouterr()
    same = ("--host", "fleet.example", "--control", "127.0.0.1:8000")
    assert init("same", *same) == 2
    assert "--control 127.0.0.1:8001" in capsys.readouterr().err
    six = ("--host", "fleet.example", "--control", "[::1]:8001")
    assert init("six", *six) == 0
    assert "::1" in FleetDirectory(tmp_path / "six").members().hosts
    open_to_all = ("--host", "fleet.example", "--control", "10.0.0.1:8000")
    assert init("open", *open_to_all) == 0
    assert "is not on this machine alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        *[("127.0.0.1", True), ("127.1.2.3", True), ("::1", True)],
        *[("localhost", True), ("0.0.0.0", False), ("::", False)],
        *[("10.0.0.1", False), ("superlink", False), ("localhost.example", False)],
    ],
)
def test_what_only_this_machine_reaches(host: str, alone: bool) -> None:
    assert loopback(host) is alone


def test_a_fleet_within_one_machine_has_no_proxy_that_wants_the_same_port() -> None:
    files = written(members(superlink="127.0.0.1:8000", control="127.0.0.1:8000"))
    assert {name for name in files if "nginx" in name or "proxy" in name} == set()
    assert "systemd/expertfleet-superexec.service" in files


def test_the_superlink_s_unit_binds_the_loopback_and_closes_every_door() -> None:
    files = written(members())
    assert set(files) == {
        *("nginx.conf", "flwr/config.toml", "owners/fleet.json"),
        *(f"systemd/expertfleet-{name}.service" for name in UNITS),
    }
    link = files["systemd/expertfleet-superlink.service"]
    assert "--host 127.0.0.1 --port 8001" in link
    for flag in ("--enable-supernode-auth", "--isolation process", "--ssl-keyfile"):
        assert flag in link
    assert "FLWR_SUPERGRID_API_URL=http://127.0.0.1:8002" in link
    for name in ("superlink", "superexec"):
        unit = files[f"systemd/expertfleet-{name}.service"]
        assert "--superexec-auth-secret-file %d/superexec.secret" in unit
        assert ("server.key" in unit) is (name == "superlink")
        assert "ca.key" not in unit and "apps.key" not in unit
    assert "$" not in "".join(
        text for name, text in files.items() if name.startswith("systemd")
    )
    assert "CAP_NET_BIND_SERVICE" not in files["systemd/expertfleet-proxy.service"]
    low = written(members(superlink="fleet.example:443"))
    assert "CAP_NET_BIND_SERVICE" in low["systemd/expertfleet-proxy.service"]


@pytest.mark.parametrize(
    "control", ["127.0.0.1:8001", "[::1]:8001", "superlink:8000", "10.0.0.1:8000"]
)
def test_nginx_passes_the_fleet_api_alone(control: str) -> None:
    conf = written(members(control=control))["nginx.conf"]
    inside_a_container = control in {"superlink:8000", "10.0.0.1:8000"}
    port = 9092 if inside_a_container else 8000
    outside = conf[conf.index(f"listen {port} ssl") :].partition("server {")[0]
    assert re.findall(r"location (.*) \{", outside) == ["~ ^/v1/fleet/[a-z-]+$", "/"]
    for limit in (
        *(
            "limit_conn peer",
            "limit_conn all",
            "limit_req zone",
            "client_max_body_size",
        ),
        *("client_header_timeout", "client_body_timeout", "send_timeout"),
    ):
        assert limit in conf
    # Only where the SuperLink is out of reach is the proxy the way to the Runtime API.
    assert ("/v1/runtime/" in conf) is inside_a_container


@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")
@pytest.mark.parametrize("control", ["127.0.0.1:8001", "[::1]:8001", "superlink:8000"])
def test_nginx_finds_nothing_wrong(control: str, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    arguments = ["init", "--host", "fleet.example", "--control", control]
    assert main(["fleet", "--dir", str(fleet), *arguments]) == 0
    ran = subprocess.run(
        ["nginx", "-t", "-e", "stderr", "-c", fleet / "nginx.conf"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert "warn" not in ran.stderr


class Answering(BaseHTTPRequestHandler):
    """A server that says the same to everything."""

    status, body = 404, b""

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "body", "open_"),
    [
        (415, b'{"code":1002,"detail":"Unsupported Content-Type."}', True),
        (200, b'{"code":1}', True),
        (404, b'{"detail":"Not Found"}', False),
        (404, b'{"code":1}', False),
        (400, b"<html>plain HTTP to a TLS port</html>", False),
        (200, b"[1]", False),
    ],
)
def test_an_open_control_api_is_found_and_nobody_is_registered(
    status: int,
    body: bytes,
    open_: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    handler = type("Handler", (Answering,), {"status": status, "body": body})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        # Here every address is the loopback: one of them plays the outside.
        monkeypatch.setattr(exposure, "loopback", lambda host: host != "127.0.0.1")
        monkeypatch.setattr(exposure, "own_addresses", lambda: ["127.0.0.1"])
        port = server.server_address[1]
        found = members(control=f"localhost:{port}", superlink="127.0.0.1:9")
        where = f"127.0.0.1:{port}"
        assert open_addresses(found) == ([where] if open_ else [])
        fleet = FleetDirectory(tmp_path / "fleet")
        with fleet.locked():
            fleet.create(found)
        if open_:
            with pytest.raises(ProvisioningError, match=f"everybody at {where}"):
                register(fleet)
        else:
            register(fleet)  # which has nobody to register yet
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_own_addresses_are_those_that_others_reach() -> None:
    for address in exposure.own_addresses():
        assert not address.startswith(("127.", "fe80"))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        socket.inet_pton(family, address)


class Link(ControlAPI):
    """A SuperLink's list without a SuperLink."""

    def __init__(self, nodes: list[NodeInfo]) -> None:
        self.listed, self.asked = nodes, []  # type: list[NodeInfo], list[object]

    def nodes(self) -> list[NodeInfo]:
        return self.listed

    def _ask(self, call: object, request: object) -> object:  # type: ignore[override]
        self.asked.append(request)
        return None

    _client = type("Client", (), {"RegisterNode": None})()


def test_a_second_key_under_a_device_s_name_is_refused() -> None:
    from server_app.provisioning.certificates import openssh_to_pem

    mine, other = (public_openssh(device_key()).decode() for _ in range(2))
    node = NodeInfo(
        node_id=7,
        name="pi0",
        status="online",
        public_key=openssh_to_pem(other),
    )
    link = Link([node])
    with pytest.raises(ProvisioningError, match="node 7 has the name 'pi0'"):
        link.register("pi0", mine)
    assert link.asked == []
    link.register("pi1", mine)  # another name is another device
    assert len(link.asked) == 1
    link.register("pi0", other)  # its own key is there already
    assert len(link.asked) == 1


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny/__init__.py").write_text("x = 1\n")
    (folder / "tiny/server.py").write_text("app = None\n")
    (folder / "tiny/client.py").write_text("app = None\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "tiny"\nversion = "1.2.3"\nlicense = "MIT"\n'
        'dependencies = ["flwr==1.41.0"]\n[tool.flwr.app]\npublisher = "me"\n'
        'fab-include = ["tiny/**"]\n'
        '[tool.flwr.app.components]\nserverapp = "tiny.server:app"\n'
        'clientapp = "tiny.client:app"\n[tool.flwr.app.config]\n'
    )
    return folder


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def ask(address: str, spec: str) -> dict[str, object]:
    """What a SuperLink asks of its hub."""
    app_id, _, version = spec.partition("==")
    body = json.dumps({"app_id": app_id, "app_version": version}).encode()
    request = urllib.request.Request(f"http://{address}/hub/fetch-fab", body)
    with urllib.request.urlopen(request, timeout=100) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def test_a_supernode_takes_what_was_signed_and_nothing_else(
    app: Path, address: str, tmp_path: Path
) -> None:
    key, other = app_key(), app_key()
    signed = apps.sign(app, key)
    assert signed.spec == "@me/tiny==1.2.3"
    trusted: dict[str, dict[str, str]] = {}
    for name, each in (("mine", key), ("other", other)):
        from server_app.provisioning.certificates import trusted_entities

        file = tmp_path / name
        file.write_bytes(trusted_entities(each))
        trusted[name] = _try_obtain_trusted_entities(file) or {}
        _validate_public_keys_ed25519(trusted[name])
    with apps.hub(signed, address):
        offer = ask(address, signed.spec)
        with urllib.request.urlopen(str(offer["fab_url"]), timeout=100) as answer:
            content = answer.read()
        with pytest.raises(urllib.error.HTTPError):
            ask(address, "@me/other==1.2.3")
    verifications = _format_verification(offer["verifications"])  # type: ignore[arg-type]
    fab = Fab(hashlib.sha256(content).hexdigest(), content, verifications)
    assert _verify_fab(fab, trusted["mine"])
    assert not _verify_fab(fab, trusted["other"])
    forged = Fab(fab.hash_str, content + b"\0", verifications)
    assert not _verify_fab(forged, trusted["mine"])
    assert not _verify_fab(Fab(fab.hash_str, content, {}), trusted["mine"])


def test_what_cannot_be_submitted_is_said_in_one_line(
    app: Path, address: str, tmp_path: Path
) -> None:
    with pytest.raises(ProvisioningError, match="no app in"):
        apps.sign(tmp_path, app_key())
    signed = apps.sign(app, app_key())
    with (
        apps.hub(signed, address),
        pytest.raises(ProvisioningError, match="cannot offer the app at"),
        apps.hub(signed, address),
    ):
        pass
