"""What a round's line says: means over clients, recall by class, the table."""

import sys

import pytest

from server_app.rounds.client_round import ClientRound
from server_app.run_folder.run_files import to_json
from tests.server_app.run_folder.support import record_of

LARGEST = sys.float_info.max


def client(name: str, **metrics: float) -> ClientRound:
    return ClientRound(client=name, experts=[0], budget=1, metrics=metrics)


def test_the_mean_of_a_number_is_over_the_clients_that_have_it() -> None:
    clients = [client("a", watts=3.0, loss=0.5), client("b", watts=6.0), client("c")]
    record = record_of(1, clients=clients)
    line = record.to_json()
    assert (line["metrics.watts"], line["metrics.loss"]) == (4.5, 0.5)
    assert [each["metrics"] for each in line["clients"]] == [
        {"watts": 3.0, "loss": 0.5},
        {"watts": 6.0},
        {},
    ]
    assert record.scalars()["metrics.watts"] == 4.5
    assert record.to_metrics()["metrics.loss"] == 0.5


def test_a_mean_beyond_all_numbers_is_none_of_a_round() -> None:
    clients = [client(str(row), n=(-1) ** (row // 4) * LARGEST) for row in range(32)]
    for several in (clients[:3], clients):  # infinite, and infinity minus infinity
        record = record_of(1, clients=several)
        assert "metrics.n" not in record.scalars()
        assert '"metrics.n": null' in to_json(record.to_json())


def measured(name: str, local: float | None, held_out: int) -> ClientRound:
    return ClientRound(
        client=name, experts=[0], budget=1, client_local=local, held_out=held_out
    )


def test_local_accuracy_has_three_means() -> None:
    # 20 clients: the worst tenth are two, 0.0 and 0.05.
    clients = [measured(str(n), n / 20, held_out=1) for n in range(20)]
    clients += [measured("none", None, held_out=0)]
    clients[19].held_out = 81  # as many samples as the others have, four times over
    line = record_of(1, clients=clients).to_json()
    assert line["client_local"] == pytest.approx(sum(range(20)) / 400)
    assert line["client_local_worst"] == pytest.approx(0.025)
    by_hand = (sum(range(19)) / 20 + 81 * 0.95) / 100
    assert line["client_local_weighted"] == pytest.approx(by_hand)


def own(domain: str | None, accuracy: float | None) -> ClientRound:
    return ClientRound(
        client="a", experts=[0], budget=1, domain=domain, client_global=accuracy
    )


def test_the_worst_group_is_the_lowest_mean_of_a_domain() -> None:
    clients = [
        *(own("as it is", 0.5), own("as it is", 0.75), own("as it is", None)),
        *(own("90 degrees", 0.25), own("90 degrees", 0.875)),
        own("180 degrees", None),
    ]
    record = record_of(1, clients=clients, served=0.25)
    line = record.to_json()
    assert (line["worst_group"], line["served"]) == (0.5625, 0.25)
    assert line["client_global"] == 0.59375
    assert line["clients"][3]["domain"] == "90 degrees"
    assert record.to_metrics()["worst_group"] == 0.5625
    names, values = record.line(header=True), record.line()
    assert len(names) == len(values)
    assert len(names) <= 80
    assert names.split()[3:6] == ["local", "worst", "served"]
    assert values.split()[4:6] == ["0.5625", "0.2500"]


def test_groups_are_there_before_they_are_measured() -> None:
    line = record_of(1, clients=[own("90 degrees", None)]).to_json()
    assert (line["worst_group"], line["served"]) == (None, None)


def test_nothing_is_said_of_groups_where_no_device_differs() -> None:
    record = record_of(1)
    line = record.to_json()
    assert not {"worst_group", "served", "domain"} & {*line, *line["clients"][0]}
    assert "served" not in record.line(header=True)


def test_nothing_is_said_of_what_nobody_measured() -> None:
    line = record_of(1).to_json()
    for name in ("client_local", "client_local_weighted", "client_local_worst"):
        assert line[name] is None
    assert (line["recall"], line["balanced"], line["fleet"]) == (None, None, None)
    assert "confusion" not in line


def test_recall_is_a_scalar_of_every_class_that_has_samples() -> None:
    record = record_of(1, recall=[1.0, None, 0.0], balanced=0.5, local_recall=[0.25])
    scalars = record.scalars()
    assert scalars["recall.0"] == 1.0 and scalars["recall.2"] == 0.0
    assert "recall.1" not in scalars
    assert scalars["local_recall.0"] == 0.25
    assert scalars["balanced"] == record.to_metrics()["balanced"] == 0.5
    many = record_of(1, recall=[0.5] * 101)
    assert not any(name.startswith("recall.") for name in many.scalars())


def test_the_table_shows_a_class_that_is_never_found() -> None:
    record = record_of(3, server_global=0.999, balanced=0.5)
    names, values = record.line(header=True).split(), record.line().split()
    assert names[:3] == ["round", "server", "balanced"]
    assert values[:3] == ["3", "0.9990", "0.5000"]
    assert len(record.line()) == len(record.line(header=True)) <= 80


@pytest.mark.parametrize("served", [None, 0.25])
@pytest.mark.parametrize("privacy", [None, {"epsilon": 1.25}])
def test_the_table_fits_an_ordinary_terminal(
    served: float | None, privacy: dict[str, float] | None
) -> None:
    record = record_of(30, server_global=0.5, served=served, privacy=privacy)
    names = record.line(header=True)
    assert len(names) == len(record.line()) <= 80
    # What is special to a run takes the room of what is least asked for.
    assert ("worst" in names, "epsilon" in names) == (bool(served), bool(privacy))
    for name in ("round", "server", "global", "local", "CV cum", "MB up", "round s"):
        assert name in names


def test_where_devices_measure_the_table_says_so_from_the_first_round_on() -> None:
    unmeasured = record_of(1, server_global=None, fleet_clients=[])
    assert unmeasured.line(header=True).split()[:3] == ["round", "fleet", "balanced"]
    assert unmeasured.line().split()[:3] == ["1", "-", "-"]
    record = record_of(2, server_global=None, fleet=0.75, fleet_clients=["a"])
    assert record.line().split()[:2] == ["2", "0.7500"]
