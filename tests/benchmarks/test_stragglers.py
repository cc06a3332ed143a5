"""Devices in simulated time, and when a course reaches its target: by hand."""

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.stragglers import CLIENTS, Course, Devices, run
from benchmarks.timed_grid import SimulatedClock, TimedGrid


def echo() -> ClientApp:
    app = ClientApp()

    @app.query()
    @app.train()
    def answer(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return app


def order(node: int, kind: str = "train") -> Message:
    return Message(RecordDict(), node, kind, group_id="1")


def test_a_reply_is_there_when_its_device_has_sent_it(task_identity: None) -> None:
    clock = SimulatedClock()
    grid = TimedGrid(
        echo(),
        3,
        {},
        clock=clock,
        seconds=lambda message: 5.0 * message.metadata.dst_node_id,
        # Node 2 is away from 8 s to 20 s.
        back=lambda node, now: 20.0 if node == 2 and 8 <= now < 20 else now,
    )
    ids = grid.push_messages([order(3), order(2), order(1), order(1, "query")])

    def arrived() -> list[int]:
        return [reply.metadata.src_node_id for reply in grid.pull_messages(ids)]

    def there() -> list[int]:
        return [node.node_id for node in grid.get_nodes()]

    assert arrived() == [1] and there() == [1, 2, 3]  # the query takes no time
    clock.sleep(5)
    assert arrived() == [1]
    clock.sleep(5)  # node 2 has finished, and cannot send it
    assert arrived() == [] and there() == [1, 3]
    clock.sleep(10)
    assert arrived() == [3, 2] and there() == [1, 2, 3]


def test_devices_are_away_for_a_fifth_of_the_time_and_differ_tenfold() -> None:
    devices = Devices(7)
    times = np.arange(0.0, 20_000.0, 7.0)
    here = [
        [devices.back(node, now) == now for now in times]
        for node in range(1, CLIENTS + 1)
    ]
    assert 0.75 < np.mean(here) < 0.85
    assert devices._seconds.max() / devices._seconds.min() == pytest.approx(10)
    later = devices.back(1, 100.0)
    assert later >= 100 and devices.back(1, later) == later


def test_when_a_course_reaches_its_target() -> None:
    course = Course(measured=[(100.0, 0.2), (200.0, 0.6), (500.0, 0.7), (600.0, 0.9)])
    # Means of the last 300 s: the first two together, then each with what is near it.
    smoothed = [(100.0, 0.2), (200.0, 0.4), (500.0, 0.7), (600.0, 0.8)]
    np.testing.assert_allclose(course.smoothed(), smoothed)
    assert course.reaches(0.7) == 500
    assert course.reaches(0.85) is None


@pytest.mark.parametrize("schedule", ["synchronous", "buffered"])
def test_a_schedule_runs_in_simulated_time(schedule: str) -> None:
    course = run(schedule, 0, rounds=1, deadline=40.0, budget=None)
    assert course.rounds == 1 and course.staleness == [0] * course.replies
    [(now, accuracy)] = course.measured
    # Everybody there, or a third of them, who are the quick ones.
    assert now > 100 if schedule == "synchronous" else 10 < now < 60
    assert 0 < accuracy < 1
