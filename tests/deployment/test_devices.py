"""Devices of different size: what they hold, and who may be a device at all."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.wire import QueryReply
from server_app.__main__ import main
from server_app.fleet.budget import DeviceBudget
from server_app.provisioning.directory import FleetDirectory
from tests.deployment.fleet import Fleet, Run

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.timeout(1200),
]

# Experts of 9 MB: training one more takes 45 MB, which no measurement mistakes.
CONFIG: dict[str, Any] = {
    "num-experts": 4,
    "expert-hidden": 30_000,
    "expert-capacity": 4,
    "local-epochs": 1,
    "test-samples": 16,
    "seed": 4,
}


def profiles(run: Run) -> list[QueryReply]:
    facts = json.loads((run.folder / "run.json").read_text())["clients"]
    known = QueryReply.model_fields.keys()
    return [
        QueryReply(**{k: v for k, v in facts[name].items() if k in known})
        for name in sorted(facts)
    ]


def limits(fleet: Fleet) -> list[int]:
    """Memory for one, two and three experts, half an expert to spare."""
    run = fleet.submit({**CONFIG, "expert-hidden": 8, "num-rounds": 1})
    assert fleet.finish(run) == "finished:completed", fleet.log(run)
    settings = Settings.from_run_config(CONFIG)
    budget = DeviceBudget(settings, model_spec(settings, dataset_of(settings)), 4)
    found = []
    for number, profile in enumerate(profiles(run)):
        needed = budget.memory(profile)[[number, number + 1]].mean()
        found.append(int(needed / (1 - settings.rounds.capacity_margin)))
    return found


def test_devices_of_different_size_hold_what_fits_and_keep_their_gates(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    caps = limits(fleet)
    for device, cap in zip(fleet.devices, caps, strict=True):
        device.stop()
        before_the_bundle = device.command.index("--state-dir")
        device.command[before_the_bundle:before_the_bundle] = [
            "--set",
            f"memory-bytes={cap}",
        ]
        device.start()
    fleet.until("all devices online", fleet.all_online)

    # However long the restart takes, no round goes on without the device; and none
    # waits until its deadline for what the device lost.
    patient = {"min-replies": 3, "round-deadline": 1800.0}
    run = fleet.submit({**CONFIG, **patient, "num-rounds": 3})
    fleet.until("the first round", lambda: run.records())
    fleet.devices[2].stop()
    fleet.devices[2].start()
    assert fleet.finish(run) == "finished:completed", fleet.log(run)

    records = run.records()
    assert [record["round"] for record in records] == [1, 2, 3]
    budgets = {"client-0": 1, "client-1": 2, "client-2": 3}
    peaks = dict.fromkeys(budgets, 0)
    for client in (client for record in records for client in record["clients"]):
        name = client["client"]
        assert client["budget"] == budgets[name]
        assert 1 <= len(client["experts"]) <= client["budget"]
        peaks[name] = max(peaks[name], client["memory_peak"] or 0)
    # The devices themselves say that they got by with what they have.
    for (name, peak), cap in zip(peaks.items(), caps, strict=True):
        assert 0 < peak <= cap, (name, peaks, caps)
    last = {client["client"]: client["replied"] for client in records[-1]["clients"]}
    assert last["client-2"], "the device that was restarted takes part again"
    for number in range(3):
        folder = fleet.state_dir(number) / run.folder.name
        assert [path.name for path in folder.iterdir()] == [f"client-{number}"]
        kept = {path.name for path in (folder / f"client-{number}").glob("gate-*")}
        assert {"gate-1.npy", "gate-3.npy"} <= kept

    log = fleet.log(run)
    assert "client-1 joins: 2 experts (tier 4, limits: memory 2)" in log
    command = ["fleet", "--dir", str(fleet.keys.path), "status", str(run.folder)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"client-\d +online .* answered *\n", shown)) == 3, shown


def test_strangers_and_plain_http_are_refused(fleet: Fleet, tmp_path: Path) -> None:
    keys = FleetDirectory(tmp_path / "keys")
    ours = ["fleet", "--dir", str(keys.path)]
    there = ["--superlink", fleet.address, "--control", "127.0.0.1:9"]
    assert main([*ours, "init", "--host", "127.0.0.1", *there]) == 0
    assert main([*ours, "add", "stranger"]) == 0
    command = fleet.device_command(keys, "stranger", 9)
    # It trusts the right server: only its own key is nobody's.
    shutil.copy(fleet.keys.authority_file, fleet.folder / "stranger" / "ca.crt")
    stranger = fleet.program("stranger", command)
    stranger.start()
    fleet.until("the stranger to be sent away", lambda: not stranger.running)
    assert "does not know this device's key" in stranger.log(), stranger.tail()
    assert fleet.online() == 3

    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://{fleet.address}/v1/control/list-nodes", timeout=10)
