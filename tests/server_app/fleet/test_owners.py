"""What owners allow, against devices that claim more."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common import wire
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from common.settings import Settings
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.fleet import Fleet
from server_app.fleet.owners import VARIABLE, Owners
from server_app.provisioning.members import Members
from server_app.provisioning.server_files import server_files
from server_app.transport.mailbox import Mailbox
from tests.server_app.fleet.test_fleet import profile_of
from tests.server_app.fleet.town import SPEC, digest_of

HUGE = 2**40


class Run:
    """A fleet whose devices claim what the test says, and the list it goes by."""

    def __init__(self, folder: Path, claims: list[dict[str, Any]], **config: Any):
        self.file = folder / "owners.json"
        self.claims = claims
        app = ClientApp()

        @app.query()
        def query(message: Message, context: Context) -> Message:
            number = int(context.node_config["partition-id"])
            said = {"task_hash": digest_of(message), **self.claims[number]}
            profile = profile_of(f"pi-{number}", **said)
            return Message(wire.encode_query_reply(profile), reply_to=message)

        self.grid = InlineGrid(app, len(claims), {})
        self._config = {"fleet-list": str(self.file), "expert-capacity": 4, **config}
        self._fleet: Fleet | None = None
        self._round = 0

    def write(self, **devices: Any) -> None:
        listed = {name.replace("_", "-"): what for name, what in devices.items()}
        self.file.write_text(json.dumps({"size": 3, "devices": listed}))

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            settings = Settings.from_run_config(self._config)
            self._fleet = Fleet(settings, DeviceBudget(settings, SPEC, largest=8))
        return self._fleet

    def budgets(self) -> dict[str, int]:
        self._round += 1
        ready = self.fleet.refresh(self.grid, Mailbox(), self._round, timeout=5)
        return {client.name: self.fleet.budget(client) for client in ready}


def test_a_device_asks_for_less_and_never_for_more(tmp_path: Path) -> None:
    claims = [{"expert_cap": cap} for cap in (0, 1, 8)]
    run = Run(tmp_path, claims)
    # The tier gives everybody 4.
    run.write(pi_0={}, pi_1={}, pi_2={})
    assert run.budgets() == {"pi-0": 4, "pi-1": 1, "pi-2": 4}
    for cap, expected in ((2, (2, 1, 2)), (6, (6, 1, 6)), (8, (8, 1, 8))):
        run.write(**{f"pi_{n}": {"expert_cap": cap} for n in range(3)})
        assert tuple(run.budgets().values()) == expected


def test_without_a_list_devices_are_believed(tmp_path: Path) -> None:
    run = Run(tmp_path, [{"expert_cap": 8}, {}], **{"fleet-list": ""})
    assert run.budgets() == {"pi-0": 8, "pi-1": 4}


@pytest.mark.parametrize("claim", [HUGE, None])
def test_memory_is_at_most_what_the_owner_gives(
    tmp_path: Path, claim: int | None
) -> None:
    run = Run(tmp_path, [{"memory_available": claim, "memory_bytes": HUGE}])
    run.write(pi_0={"memory": 1000})
    assert run.budgets() == {}  # nothing can be trained in a kilobyte
    assert "too few to train one expert" in run.fleet.refused["pi-0"]
    run.write(pi_0={"memory": HUGE})
    assert run.budgets() == {"pi-0": 4}
    [client] = run.fleet.clients
    assert run.fleet.profile(client).memory_available == (claim or HUGE)


def test_a_share_is_the_one_its_owner_gave(tmp_path: Path) -> None:
    run = Run(tmp_path, [{"partition_id": 2}, {}, {"num_partitions": 5}])
    run.write(**{f"pi_{n}": {"partition_id": n} for n in range(3)})
    assert run.budgets() == {"pi-1": 4}
    assert run.fleet.refused == {
        "pi-0": "it says it has share 2 of 3, its owner gave it share 0 of 3",
        "pi-2": "it says it has share 2 of 5, its owner gave it share 2 of 3",
    }
    # Once it says the truth it takes part.
    run.claims[0] = {}
    while "pi-0" not in (budgets := run.budgets()):  # it is asked again after a rest
        assert run._round < 9
    assert budgets == {"pi-1": 4, "pi-0": 4}
    assert set(run.fleet.refused) == {"pi-2"}


def test_who_has_data_of_its_own_does_without_its_share(tmp_path: Path) -> None:
    profile = profile_of("pi-0", partition_id=-1, num_partitions=0)
    file = tmp_path / "owners.json"
    for size, device in ((3, {"partition_id": 0}), (None, {"partition_id": None})):
        file.write_text(json.dumps({"size": size, "devices": {"pi-0": device}}))
        assert Owners(file, admit_unknown=False).refusal(profile) == ""


def test_who_is_not_on_the_list_is_refused_or_admitted_with_nothing_of_its_own(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, [{}, {"expert_cap": 8}])
    run.write(pi_0={})
    assert run.budgets() == {"pi-0": 4}
    assert run.fleet.refused == {"pi-1": "it is not on the list in fleet-list"}
    assert len(run.fleet) == 1  # and has no row
    open_house = Run(tmp_path, run.claims, **{"unknown-clients": "admit"})
    assert open_house.budgets() == {"pi-0": 4, "pi-1": 4}


def test_the_list_counts_as_it_is_when_a_round_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, [{}, {}])
    run.write(pi_0={}, pi_1={})
    assert run.budgets() == {"pi-0": 4, "pi-1": 4}
    run.write(pi_0={"expert_cap": 1})
    assert run.budgets() == {"pi-0": 1}
    assert "pi-1" in run.fleet.refused
    run.file.write_text("{")
    assert run.budgets() == run.budgets() == {"pi-0": 1}
    assert caplog.text.count("keeping the list read before") == 1
    run.file.unlink()
    assert run.budgets() == {"pi-0": 1}
    run.write(pi_0={"expert_cap": 2}, pi_1={"expert_cap": 3})
    assert run.budgets() == {"pi-0": 2, "pi-1": 3}
    assert run.fleet.refused == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read: No such file"),
        ("", "is damaged: its JSON: "),
        ("[]", "is damaged: its JSON: "),
        ("{}", "is damaged: devices: Field required"),
        ('{"devices": {"a": {"expert_cap": -1}}}', "devices.a.expert_cap: Input"),
        ('{"devices": {"a": {"memory": "much"}}}', "devices.a.memory: Input"),
        ('{"devices": {"a": {"expert_cap": NaN}}}', "is damaged: "),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error_of_one_line(
    tmp_path: Path, text: str | None, told: str
) -> None:
    run = Run(tmp_path, [{}])
    if text is not None:
        run.file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        run.budgets()
    assert "fleet-list = " in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fleets_own_list_is_one(tmp_path: Path) -> None:
    from server_app.__main__ import main

    where = ["fleet", "--dir", str(tmp_path / "fleet")]
    assert main([*where, "init", "--host", "127.0.0.1", "--size", "3"]) == 0
    assert main([*where, "add", "pi-0", "--expert-cap", "1"]) == 0
    assert main([*where, "add", "pi-1", "--memory", "1K"]) == 0
    claims = [{"expert_cap": 8}, {"memory_available": HUGE}, {}]
    run = Run(tmp_path, claims, **{"fleet-list": str(tmp_path / "fleet/fleet.json")})
    assert run.budgets() == {"pi-0": 1}
    assert set(run.fleet.refused) == {"pi-1", "pi-2"}
    assert main([*where, "add", "pi-2", "--memory", "-1"]) == 2


def test_the_servers_environment_names_the_list_where_settings_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named"
    named.mkdir()
    run = Run(tmp_path, [{"expert_cap": 8}], **{"fleet-list": ""})
    run.write(pi_0={"expert_cap": 2})
    monkeypatch.setenv(VARIABLE, str(run.file))
    assert run.budgets() == {"pi-0": 2}
    other = Run(named, run.claims)
    other.write(pi_0={"expert_cap": 3})
    assert other.budgets() == {"pi-0": 3}
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Run(tmp_path, run.claims, **{"fleet-list": ""}).budgets()


def test_a_fleet_hands_its_server_what_owners_allow_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server_app.__main__ import main

    fleet = tmp_path / "fleet"
    where = ["fleet", "--dir", str(fleet)]
    assert main([*where, "init", "--host", "127.0.0.1", "--size", "3"]) == 0
    owners = fleet / "owners" / "fleet.json"
    assert json.loads(owners.read_text()) == {"size": 3, "devices": {}}
    # Read by the user of SuperExec, to whom the unit shows this directory alone.
    assert owners.stat().st_mode & 0o777 == 0o644
    assert owners.parent.stat().st_mode & 0o777 == 0o755
    assert main([*where, "add", "pi-0", "--expert-cap", "1"]) == 0
    assert main([*where, "add", "pi-1", "--memory", "1K"]) == 0
    assert json.loads(owners.read_text())["devices"] == {
        "pi-0": {"partition_id": 0, "expert_cap": 1, "memory": 0},
        "pi-1": {"partition_id": 1, "expert_cap": 0, "memory": 1000},
    }
    monkeypatch.setenv(VARIABLE, str(owners))
    claims = [{"expert_cap": 8}, {"memory_available": HUGE}, {}]
    run = Run(tmp_path, claims, **{"fleet-list": ""})
    assert run.budgets() == {"pi-0": 1}
    assert set(run.fleet.refused) == {"pi-1", "pi-2"}
    assert main([*where, "remove", "pi-0"]) == 0
    assert run.budgets() == {}
    assert "pi-0" in run.fleet.refused


def test_unit_and_compose_file_name_the_list() -> None:
    root = Path(__file__).resolve().parents[3]
    members = Members(
        superlink="h:8000", control="127.0.0.1:8001", hosts=("h",), size=1
    )
    files = dict(server_files(members, Path("/fleet")))
    unit = files["systemd/expertfleet-superexec.service"].decode().splitlines()
    assert "BindReadOnlyPaths=/fleet/owners:/run/expertfleet-owners" in unit
    assert f"Environment={VARIABLE}=/run/expertfleet-owners/fleet.json" in unit
    compose = yaml.safe_load((root / "docker/compose.server.yaml").read_text())
    service = compose["services"]["superexec"]
    assert service["environment"] == {VARIABLE: "/run/owners/fleet.json"}
    assert "${FLEET_DIR:-../fleet}/owners:/run/owners:ro" in service["volumes"]
