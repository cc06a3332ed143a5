"""Images and compose files at work: a server and three devices in containers.

One device is an arm64 one (in qemu, unless this machine is), another sits behind a link
of 2 Mbit/s, and one loses power in the middle of a run and memory in that of another.
"""

import json
from collections.abc import Mapping, Sequence

import pytest

from tests.containers.demo import DEVICES, Demo

pytestmark = [
    pytest.mark.containers,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
]

CONFIG = {
    "num-rounds": 3,
    "strategy": "flex-moe",
    "task": "/task.toml",
    "min-replies": 3,
    # So wide that memory is what limits: about 220 MB of it for each expert held.
    "num-experts": 8,
    "expert-capacity": "8",
    "expert-hidden": 40960,
    "top-k": 0,
    "batch-size": 512,
    "local-epochs": 1,
    "lr": 0.01,
}

ASK = """
import http.client, ssl
context = ssl.create_default_context(cafile="/bundle/ca.crt")
for method, path in {requests!r}:
    link = http.client.HTTPSConnection("proxy", 9092, context=context, timeout=20)
    link.request(method, path, body=b"")
    print(link.getresponse().status)
"""

ALLOWED = [("proxy", 8000), ("proxy", 9092)]

CONNECT = """
import socket
try:
    socket.create_connection(({host!r}, {port}), timeout=5)
    print("connected")
except OSError as error:
    print("refused")
"""


def test_a_device_reaches_the_fleet_api_and_nothing_else(demo: Demo) -> None:
    closed = [
        ("POST", "/v1/control/ListNodes"),
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/runtime/AcquireTask"),
        ("GET", "/health"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("POST", "/v1/fleet/../control/ListNodes"),
        ("POST", "/v1/fleet/%2e%2e/control/ListNodes"),
        ("POST", "/v1/fleetx"),
    ]
    said = demo.python("small-supernode", ASK.format(requests=closed))
    assert said.split() == ["404"] * len(closed)

    link = demo.container("superlink")["NetworkSettings"]["Networks"]
    [address] = [network["IPAddress"] for network in link.values()]
    for service in ("small-supernode", "small-superexec"):
        for host in ("superlink", address):
            code = CONNECT.format(host=host, port=8000)
            assert demo.python(service, code) == "refused", (service, host)
    assert not demo.container("superlink")["HostConfig"]["PortBindings"]


def test_what_runs_serverapps_does_not_reach_the_control_api(demo: Demo) -> None:
    for host in ("superlink", "operator", "proxy"):
        for port in (8000, 8002, 9092):
            code = CONNECT.format(host=host, port=port)
            # The proxy's own name leads to its door for the Runtime API.
            expected = "connected" if (host, port) in ALLOWED else "refused"
            assert demo.python("superexec", code) == expected, (host, port)
    asked = [
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/fleet/get-run"),
        ("POST", "/v1/runtime/../control/start-run"),
        ("GET", "/health"),
    ]
    code = ASK.format(requests=asked).replace('"proxy", 9092', '"runtime", 8000')
    code = code.replace("/bundle/ca.crt", "/run/fleet/ca.crt")
    assert demo.python("superexec", code).split() == ["404"] * len(asked)


def test_what_trains_reaches_only_its_supernode(demo: Demo) -> None:
    proxy = demo.container("proxy")["NetworkSettings"]["Networks"]
    for host in ("proxy", *(network["IPAddress"] for network in proxy.values())):
        code = CONNECT.format(host=host, port=9092)
        assert demo.python("small-superexec", code) == "refused", host
    code = CONNECT.format(host="supernode", port=9094)
    assert demo.python("small-superexec", code) == "connected"


def test_a_supernode_with_another_key_is_refused(demo: Demo) -> None:
    """A stranger who has everything but a registered key."""
    code = """
import pathlib, shutil
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import serialization as s
new = pathlib.Path("/tmp/stranger"); shutil.copytree("/bundle", new)
key = ec.generate_private_key(ec.SECP384R1())
(new / "supernode.key").write_bytes(
    key.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption()))
"""
    demo.python("small-supernode", code)
    command = ["timeout", "60", "python", "-m", "client_app", "supernode"]
    command += ["/tmp/stranger", "--", "--port", "9194", "--max-retries", "1"]
    with pytest.raises(AssertionError) as refused:
        demo.execute("small-supernode", *command)
    said = str(refused.value)
    assert ": 124\n" not in said, said
    assert "SuperNode ID" not in said, said
    assert sorted(demo.nodes()) == sorted(DEVICES)


def test_containers_run_without_privileges(demo: Demo) -> None:
    for service in ("superlink", "superexec", "proxy", "small-supernode"):
        assert demo.execute(service, "id", "-u").strip() != "0"
        with pytest.raises(AssertionError, match="Read-only file system"):
            demo.execute(service, "touch", "/var/tmp/here")
        status = demo.execute(service, "cat", "/proc/self/status")
        assert "CapEff:\t0000000000000000" in status


def test_the_device_image_is_slim(demo: Demo) -> None:
    code = """
import importlib.metadata as m, json, platform, torch
names = sorted(d.metadata["Name"].lower() for d in m.distributions())
print(json.dumps([platform.machine(), torch.__version__, torch.version.cuda, names]))
"""
    for device in DEVICES:
        machine, torch, cuda, names = json.loads(
            demo.python(f"{device}-superexec", code)
        )
        assert cuda is None
        assert not [n for n in names if n.startswith(("nvidia", "ray", "ortools"))]
        if device == "medium":
            assert machine == "aarch64"
            assert torch.partition("+")[0] == "2.9.1"


def gate_files(device: str, rounds: Sequence[int]) -> list[str]:
    return [f"{device}/gate-{number}.npy" for number in rounds]


def assert_same_devices(demo: Demo, before: Mapping[str, tuple[int, str]]) -> None:
    """Every name is still that of the same node."""
    demo.until("all devices online", lambda: demo.states() == ["online"] * 3)
    assert demo.nodes() == before


def test_three_rounds_over_a_slow_link_and_through_a_power_cut(demo: Demo) -> None:
    demo.slow_down("small-supernode", "2mbit")
    before = demo.nodes()
    run = demo.submit("run with a power cut", CONFIG)
    demo.until("the first round", lambda: demo.records(run))
    first = demo.gates("large", run)
    restarts = demo.container("large-supernode")["RestartCount"]
    demo.cut_power("large-supernode")
    demo.cut_power("large-superexec")
    records = demo.finish(run)

    assert [record["round"] for record in records] == [1, 2, 3]
    for record in records:
        clients = {each["client"]: each for each in record["clients"]}
        assert {name for name in clients if clients[name]["replied"]} == set(DEVICES)
        # 1, 2 and 3 GB.
        small, medium, large = (clients[name]["budget"] for name in DEVICES)
        assert 1 <= small < medium < large
        assert all(len(each["experts"]) <= each["budget"] for each in clients.values())
    # The same device: its name, its node, its gate.
    assert demo.container("large-supernode")["RestartCount"] > restarts
    assert_same_devices(demo, before)
    for device in DEVICES:
        assert sorted(demo.gates(device, run)) == gate_files(device, [1, 2, 3])
    assert first and first.items() <= demo.gates("large", run).items()


def test_a_device_out_of_memory_misses_one_round(demo: Demo) -> None:
    before = demo.nodes()
    kills = demo.out_of_memory_kills("large-superexec")
    run = demo.submit("run out of memory", {**CONFIG, "min-replies": 2})

    def has_trained() -> bool:
        return bool(demo.gates("large", run)) and not demo.trains("large")

    # It has reported 3 GB and waits for the others, of which one has a slow link.
    demo.until("its part of the first round", has_trained)
    with demo.memory_limit("large-superexec", "1g"):
        demo.until(
            "the kernel to kill what trains",
            lambda: demo.out_of_memory_kills("large-superexec") > kills,
        )
    first = demo.gates("large", run)
    records = demo.finish(run)

    assert [record["round"] for record in records] == [1, 2, 3]
    assert all(record["merged"] for record in records)
    assert [list(record["rejected"]) for record in records] == [[], ["large"], []]
    # Flower's code for a client process that ended without a reply.
    assert records[1]["rejected"]["large"].startswith("error 8: ")
    for record in records:
        lost = set(record["rejected"])
        clients = {each["client"]: each for each in record["clients"]}
        replied = {name for name in clients if clients[name]["replied"]}
        assert replied == set(DEVICES) - lost
    assert_same_devices(demo, before)
    # The kill may come before or after it has kept the gate of the lost round.
    last = demo.gates("large", run)
    assert set(gate_files("large", [1])) <= first.keys()
    assert set(gate_files("large", [1, 3])) <= last.keys()
    assert first.items() <= last.items()
