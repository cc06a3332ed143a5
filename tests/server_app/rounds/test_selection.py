"""Before a round: enough clients are waited for, or the run ends at once."""

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.proto.node_pb2 import NodeInfo

from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.rounds import selection
from server_app.rounds.loop import RoundLoop
from server_app.run_error import RunError
from server_app.strategies.flex_moe import FlexMoE
from tests.server_app.fleet.town import OLD, Town


def selection_of(**config: Any) -> selection.Selection:
    settings = Settings.from_run_config(
        {key.replace("_", "-"): value for key, value in config.items()}
    )
    spec = model_spec(settings, dataset_of(settings))
    return RoundLoop(FlexMoE(settings, spec))._training._selection


def names(clients: Iterable[Any]) -> list[str]:
    return [client.name for client in clients]


class Arriving(Town):
    """Nodes of which one more is there after every five looks."""

    looks = 0

    def get_nodes(self) -> list[NodeInfo]:
        self.looks += 1
        return super().get_nodes()[: 1 + self.looks // 5]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [{"code_hash": "0"}, {"checkpoint": "x"}, None])
@pytest.mark.parametrize(
    ("bad", "needed", "expected"),
    [(1, 1, ["client-1"]), (2, 3, ["client-0", "client-2", "client-3"])],
)
def test_a_refused_device_neither_ends_nor_starts_a_round(
    fault: dict[str, Any] | None, bad: int, needed: int, expected: list[str]
) -> None:
    town = Arriving(4)
    if fault is None:
        town.broken = {bad}
    else:
        town.says[bad] = fault
    found = selection_of(min_replies=needed, round_deadline=30.0).wait(1, town, needed)
    assert names(found) == expected


@pytest.mark.usefixtures("hasty")
def test_a_blink_is_waited_for_whoever_is_refused() -> None:
    class Blinking(Town):
        dark = 0

        def get_nodes(self) -> list[NodeInfo]:
            self.dark -= 1
            return [] if self.dark >= 0 else super().get_nodes()

    town = Blinking(4)
    town.says[4] = OLD
    ready = selection_of(round_deadline=30.0).wait
    assert names(ready(1, town, 1)) == ["client-0", "client-1", "client-2"]
    town.dark = 3
    assert names(ready(2, town, 1)) == ["client-0", "client-1", "client-2"]


@pytest.mark.usefixtures("hasty")
def test_more_replies_than_there_are_shares_of_the_data_end_the_run_at_once() -> None:
    ready = selection_of(min_replies=5, round_deadline=3600.0).wait
    with pytest.raises(RunError, match=r"min-replies = 5 is more .* 4 shares; 2 can"):
        ready(1, Town(2, partitions=4), 5)


@pytest.mark.usefixtures("hasty")
def test_one_device_with_a_wrong_number_of_shares_does_not_end_a_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flwr.expertfleet")
    town = Arriving(4)
    town.says[1] = {"num_partitions": 2}
    found = selection_of(min_replies=3, round_deadline=60.0).wait(1, town, 3)
    assert sorted(names(found)) == ["client-1", "client-2", "client-3"]
    waiting = [r.message for r in caplog.records if "refused: client-0" in r.message]
    assert waiting and not any("not connected" in text for text in waiting)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("refused", [0, 1, 3])
def test_more_replies_than_a_simulation_can_give_end_the_run_at_once(
    refused: int,
) -> None:
    town = Town(3, partitions=9, virtual=True)
    town.broken = set(range(1, refused + 1))
    ready = selection_of(min_replies=4, round_deadline=3600.0).wait
    with pytest.raises(RunError, match=rf"3 nodes; {3 - refused} can take part"):
        ready(1, town, 4)


@pytest.mark.usefixtures("hasty")
def test_where_others_may_come_it_is_said_who_is_missing_until_time_is_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flwr.expertfleet")
    town = Town(3, partitions=9)
    town.says[3] = OLD
    found = selection_of(min_replies=4, round_deadline=20.0).wait(1, town, 4)
    assert names(found) == ["client-0", "client-1"]
    said = [r.message for r in caplog.records if "waiting" in r.message]
    # Once, not at every look: nothing changes.
    [line] = said
    assert line.startswith("waiting for 4 clients: 2 can take part (client-0, client-1")
    assert "refused: client-2: runs other code" in line


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("drop_out", "needed", "told"), [(0.999, 1, True), (0.5, 2, False), (0.5, 3, True)]
)
def test_drop_out_that_few_rounds_survive_is_said_at_once(
    drop_out: float, needed: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    selected = selection_of(drop_out=drop_out, min_replies=needed)
    for server_round in (1, 2):
        selected.wait(server_round, Town(4), needed)
    warnings = [r.message for r in caplog.records if "drop-out" in r.message]
    assert len(warnings) == told
    assert all(f"min-replies = {needed}" in text for text in warnings)
