"""A fleet trains on while certificates are replaced, and runs only what was signed."""

import json
from pathlib import Path

import pytest

from tests.deployment.fleet import ROOT, Fleet
from tests.deployment.test_survival import CONFIG, repliers

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.timeout(1200),
]


def test_an_app_that_was_not_signed_runs_on_no_device(fleet: Fleet) -> None:
    """Who has the Control API, a stolen one say, submits what he likes."""

    def gates() -> set[Path]:
        """Of this run and, where the fleet has trained before, of those."""
        return {p for n in range(3) for p in fleet.state_dir(n).glob("**/gate-*")}

    def at_work() -> bool:
        return any(device.has("flwr-clientapp") for device in fleet.devices)

    # A run that was stopped may have left a device in the middle of its work.
    fleet.until("devices to be idle", lambda: not at_work())
    before = [len(device.log()) for device in fleet.devices]
    had = gates()
    output = fleet.folder / "stolen"
    config = f'num-rounds=1 round-deadline=60.0 output-dir="{output}"'
    arguments = ["run", str(ROOT), "lab", "--run-config", config]
    said = fleet.flwr(*arguments, "--format", "json")
    number = json.loads(said[said.index("{") :])["run-id"]

    def refused() -> bool:
        assert not at_work()
        return all(
            "The FAB could not be verified" in device.log()[length:]
            for device, length in zip(fleet.devices, before, strict=True)
        )

    fleet.until("every device to refuse it", refused)
    # What was not run has left nothing, least of all where it was told to.
    assert gates() == had
    fleet.flwr("stop", number, "lab")


def test_renewed_certificates_keep_a_running_fleet_training(fleet: Fleet) -> None:
    names = [f"client-{number}" for number in range(3)]
    assert fleet.provision("renew", "--ca") == 0
    # Devices first: one that cannot say that it goes is taken for alive for a minute.
    for program in (*fleet.devices, fleet.executor, fleet.link):
        program.stop()
    for name in names:
        fleet.unpack(fleet.keys, name)
    fleet.repair()

    run = fleet.submit({**CONFIG, "num-rounds": 4, "seed": 5, "min-replies": 3})
    fleet.until("the first round", lambda: run.records())
    assert fleet.provision("renew", "--server") == 0
    fleet.link.stop()
    fleet.link.start()
    fleet.until("the second round", lambda: len(run.records()) > 1)
    assert fleet.provision("renew", "client-0") == 0
    fleet.unpack(fleet.keys, "client-0")
    assert fleet.provision("renew", "--ca", "--finish") == 0
    fleet.link.stop()
    fleet.link.start()
    assert fleet.finish(run) == "finished:completed", fleet.log(run)
    records = run.records()
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert all(repliers(record) == names for record in records)
    assert [p.name for p in fleet.keys.path.glob("*.next")] == []
