"""A real deployment in which machines die: the run completes or is resumed."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import load_file

from server_app.commands.simulate import simulate
from tests.deployment.fleet import Fleet, Run
from tests.deployment.program import Program

pytestmark = [
    pytest.mark.deployment,
    # The time is Flower's: about 45 s until a dead device is noticed.
    pytest.mark.timeout(1200),
]

NAMES = ["client-0", "client-1", "client-2"]
CONFIG: dict[str, Any] = {"num-experts": 4, "local-epochs": 1, "lr": 0.1}


def assert_same_as_in_one_process(run: Run, config: dict[str, Any], tmp: Path) -> None:
    places = {"output-dir": str(tmp / "inline"), "state-dir": str(tmp / "state")}
    simulate({**config, **places}, 3)
    [inline] = (tmp / "inline").iterdir()
    expected = load_file(inline / "model.safetensors")
    found = load_file(run.folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def has_replied(log: str) -> bool:
    """Whether a device has sent a reply to an order."""
    _, _, after = log.partition("Sending: train message")
    return "Sent successfully" in after


def orders(log: str) -> int:
    """How many orders a device has taken."""
    return log.count("Receiving: train message")


def since_now(fleet: Fleet) -> Callable[[Program], str]:
    """Return what tells a device's log since this call."""
    before = {device.home: len(device.log()) for device in fleet.devices}
    return lambda device: device.log()[before[device.home] :]


def missing(text: str) -> list[str]:
    """Return who is missing, as the official client reads Prometheus' text."""
    return [
        sample.labels["device"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "expertfleet_device_missing" and sample.value == 1
    ]


def repliers(record: dict[str, Any]) -> list[str]:
    return [each["client"] for each in record["clients"] if each["replied"]]


def gates(fleet: Fleet, run: Run, device: int) -> list[str]:
    """Names of the private gates a device keeps for a run; no other has any of them."""
    folder = fleet.state_dir(device) / run.folder.name
    assert [path.name for path in folder.iterdir()] == [f"client-{device}"]
    return sorted(path.name for path in folder.glob("client-*/gate-*.npy"))


def test_a_killed_device_is_missed_by_name_and_returns_as_the_same_client(
    fleet: Fleet, tmp_path: Path
) -> None:
    config = {**CONFIG, "num-rounds": 7, "seed": 2, "round-deadline": 300.0}
    log_since = since_now(fleet)
    assert fleet.provision("status") == 0
    run = fleet.submit(config)
    device = fleet.devices[1]
    fleet.until("its directory", lambda: [*run.output.glob("*/run.json")])
    told, metrics = tmp_path / "alerts", tmp_path / "fleet.prom"
    watch = fleet.operator(
        *("status", str(run.folder), "--watch", "--every", "1"),
        *("--format", "prometheus", "--output", str(metrics)),
        *("--on-alert", f'echo "$EXPERTFLEET_ALERT $EXPERTFLEET_ABOUT" >> {told}'),
        *("--alert-after", "0"),
    )
    watch.start()
    fleet.until("the first round", lambda: run.records())
    fleet.until("its second order", lambda: orders(log_since(device)) == 2, every=0.1)
    device.kill()
    before = gates(fleet, run, 1)
    # Flower takes a device for alive for a minute after its last sign of life.
    fleet.until(
        "exit code 3", lambda: fleet.provision("status", str(run.folder)) == 3, every=2
    )
    fleet.until("the alert", told.exists)
    fleet.until("the metric", lambda: missing(metrics.read_text()) == ["client-1"])

    def is_back() -> bool:
        # Flower refuses it as long as it takes the dead one for alive.
        if not device.running:
            device.start()
        return any("client-1" in repliers(record) for record in run.records()[2:])

    fleet.until("the killed device to take part again", is_back, every=5)
    assert fleet.finish(run) == "finished:completed", fleet.log(run)

    fleet.until("it not to be missed", lambda: missing(metrics.read_text()) == [])
    watch.kill()
    devices = [x for x in told.read_text().splitlines() if x.startswith("device")]
    assert devices == ["device-missing client-1"]

    records = run.records()
    assert [record["round"] for record in records] == list(range(1, 8))
    assert all(record["merged"] for record in records)
    second = records[1]
    assert {"client-0", "client-2"} <= set(repliers(second))
    assert [r["round"] for r in records if r["rejected"]] in ([2], [])
    # Flower notices, unless the device is back before the server has looked once more.
    if reason := second["rejected"].get("client-1"):
        assert reason.startswith("error 5: "), reason
        assert f"not merged: client-1: {reason}" in fleet.log(run)
    else:
        assert "client-1: lost on the way, asked again" in second["notes"]
        assert "client-1" in repliers(second)
    assert before == ["gate-1.npy"]
    last = max(r["round"] for r in records if "client-1" in repliers(r))
    assert f"gate-{last}.npy" in gates(fleet, run, 1)


def test_a_run_survives_its_superlink_and_is_resumed_after_a_power_cut(
    fleet: Fleet, tmp_path: Path
) -> None:
    config = {**CONFIG, "num-rounds": 4, "seed": 3, "min-replies": 3}
    slow = fleet.devices[2]
    log_since = since_now(fleet)
    run = fleet.submit(config)
    fleet.until("its first reply", lambda: has_replied(log_since(slow)), every=0.1)
    slow.suspend()
    fleet.until("the first round", lambda: run.records())
    # Sent in this order: when the others have theirs, its own is at the SuperLink.
    fleet.until(
        "the second one",
        lambda: all(orders(log_since(each)) == 2 for each in fleet.devices[:2]),
        every=0.1,
    )

    # It dies after it has noted a delivery and before the device has it.
    fleet.link.kill()
    assert fleet.lose_messages()
    fleet.link.start()
    slow.resume()

    # ServerApp and SuperNodes retry until the SuperLink answers again.
    fleet.until("the second round", lambda: len(run.records()) > 1)
    assert "client-2: lost on the way, asked again" in run.records()[1]["notes"]
    fleet.until("the third one", lambda: fleet.devices[0].has("flwr-clientapp"))

    # The server's machine as a whole, ServerApp included: no run survives that.
    fleet.link.kill()
    fleet.executor.kill()
    assert not (run.folder / "model.safetensors").exists()
    fleet.link.start()
    fleet.executor.start()
    fleet.until("the SuperLink to answer", fleet.all_online)

    resume = {"resume-from": str(run.folder), "output-dir": str(run.output)}
    resumed = fleet.submit({**config, **resume})
    assert fleet.finish(resumed) == "finished:completed", fleet.log(resumed)

    assert "going on after round 2" in fleet.log(resumed)
    records = resumed.records()
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    for record in records:
        assert record["rejected"] == {}
        assert repliers(record) == NAMES
    assert_same_as_in_one_process(resumed, config, tmp_path)


def test_what_trains_ends_in_the_middle_and_the_run_completes(
    fleet: Fleet,
) -> None:
    config = {**CONFIG, "num-rounds": 3, "seed": 5, "local-epochs": 40}
    device = fleet.devices[2]
    log_since = since_now(fleet)
    run = fleet.submit(config)
    fleet.until("the first round", lambda: run.records())
    fleet.until(
        "their second orders",
        lambda: all(orders(log_since(each)) == 2 for each in fleet.devices),
        every=0.1,
    )
    # The resident process, the run's template and the message that is forked from it.
    part: list[psutil.Process] = []

    def trains(device: Program) -> bool:
        part[:] = device.part("resident.keeper")
        return len(part) > 2

    other = fleet.devices[1]
    fleet.until("another to train", lambda: trains(other), every=0.02)
    # As what guards a small device's memory does, which asks first.
    for process in other.part("flwr-clientapp"):
        process.terminate()
    fleet.until("it to train", lambda: trains(device), every=0.02)
    for process in part:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert fleet.finish(run) == "finished:completed", fleet.log(run)

    records = run.records()
    assert [record["round"] for record in records] == [1, 2, 3]
    assert all(record["merged"] for record in records)
    # It costs that message at most; the next one finds another resident process.
    assert repliers(records[0]) == repliers(records[2]) == NAMES, fleet.log(run)
    for name, why in records[1]["rejected"].items():
        assert name != "client-0"
        assert why == "error 8: ClientApp stopped responding."
    assert "gate-3.npy" in gates(fleet, run, 2)
    assert device.part("resident.keeper")

    # Without it, no order would be worked on any more.
    idle = fleet.devices[0]
    [executor] = idle.part("flower-superexec")
    executor.kill()
    fleet.until("another", lambda: set(idle.part("flower-superexec")) - {executor})
    fleet.until("it to be online", fleet.all_online)
    assert "the SuperExec has ended" in log_since(idle)
    assert "starting anew" in log_since(idle)
