"""Fitness over the rounds: appended, cut anywhere, gone on with, read as it was."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server_app.callbacks.live_report import LiveReport
from server_app.callbacks.runlog import RunLog
from server_app.run_folder.matrices import (
    FitnessFile,
    read_assignments,
    read_fitness,
    rounds_of,
)
from server_app.run_folder.run_files import RunFileError
from tests.server_app.run_folder.support import record_of, settings_of, state_of

Matrix = NDArray[np.float32]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    facts = {"run": "r", "settings": {}, "clients": {"a": {}, "b": {}, "c": {}}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    return tmp_path


def filled(number: int, clients: int = 3, experts: int = 2) -> Matrix:
    """Return a matrix of which round ``number`` changes row ``number`` alone."""
    matrix = np.zeros((clients, experts), dtype=np.float32)
    for each in range(1, number + 1):
        matrix[each % clients] = each
    return matrix


def written(folder: Path, rounds: int) -> list[int]:
    """Write so many rounds; return where each ends in the file."""
    file, ends = FitnessFile(folder), []
    for number in range(1, rounds + 1):
        file.append(number, filled(number))
        ends.append((folder / "fitness.rows").stat().st_size)
    return ends


def check(folder: Path, rounds: int) -> None:
    """Check that the file has these rounds and nothing else."""
    found = read_fitness(folder)
    assert found.rounds == [*range(1, rounds + 1)]
    assert found.clients == ["a", "b", "c"]
    for number, matrix in zip(found.rounds, found.values, strict=True):
        np.testing.assert_array_equal(matrix, filled(number))


@st.composite
def histories(draw: st.DrawFn) -> list[Matrix]:
    experts, clients = draw(st.integers(1, 3)), 0
    found: list[Matrix] = []
    numbers = st.sampled_from([0.0, -0.0, 0.5, np.nan, np.inf, 1e-40])
    for _ in range(draw(st.integers(1, 5))):
        clients += draw(st.integers(0, 2))
        matrix = np.zeros((clients, experts), dtype=np.float32)
        if found:
            matrix[: len(found[-1])] = found[-1]
        for row in draw(st.sets(st.integers(0, clients - 1))) if clients else ():
            matrix[row] = draw(st.lists(numbers, min_size=experts, max_size=experts))
        found.append(matrix)
    return found


@given(histories())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_appended_is_read(folder: Path, given: list[Matrix]) -> None:
    (folder / "fitness.rows").unlink(missing_ok=True)
    file = FitnessFile(folder)
    for number, matrix in enumerate(given, 1):
        file.append(number, matrix)
    found = read_fitness(folder)
    assert found.rounds == [*range(1, len(given) + 1)]
    for matrix, values in zip(given, found.values, strict=True):
        assert values[: len(matrix)].tobytes() == matrix.tobytes()
        assert np.isnan(values[len(matrix) :]).all()


def test_of_a_file_that_is_cut_anywhere_whole_rounds_are_left(folder: Path) -> None:
    ends = written(folder, 4)
    path = folder / "fitness.rows"
    whole = path.read_bytes()
    for size in range(ends[0], len(whole)):
        path.write_bytes(whole[:size])
        left = sum(end <= size for end in ends)
        check(folder, left)
        assert rounds_of(folder) == ([*range(1, left + 1)], size in ends)
        if size % 50 and size not in ends:  # syncs take their time
            continue
        # It goes on after what is left, and ends as it would have.
        file = FitnessFile(folder)
        file.cut(left + 1)
        assert path.stat().st_size == ends[left - 1]
        for number in range(left + 1, 5):
            file.append(number, filled(number))
        check(folder, 4)


@pytest.mark.parametrize("first", [1, 2, 4, 9])
def test_rounds_after_the_checkpoint_are_made_again(folder: Path, first: int) -> None:
    written(folder, 4)
    file = FitnessFile(folder)
    file.cut(first)
    kept = min(first - 1, 4)
    assert rounds_of(folder)[0] == [*range(1, kept + 1)]
    for number in range(kept + 1, 6):
        file.append(number, filled(number))
    check(folder, 5)


def test_zeros_that_a_power_cut_left_are_no_round(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = written(folder, 3)
    path = folder / "fitness.rows"
    whole = path.read_bytes()
    path.write_bytes(whole[: ends[1]] + bytes(len(whole) - ends[1]))
    check(folder, 2)
    FitnessFile(folder).cut(3)
    assert path.read_bytes() == whole[: ends[1]]
    assert "fitness.rows is damaged after round 2" in caplog.text


@pytest.mark.parametrize(
    ("clients", "row", "experts"),
    [(3, 3, 2), (3, 2**32 - 1, 2), (1, 0, 2), (-4, 0, 2), (2**62, 0, 2), (3, 0, 5)],
)
def test_a_record_that_cannot_be_is_damaged(
    folder: Path, clients: int, row: int, experts: int
) -> None:
    written(folder, 2)
    kind = [("row", "<u4"), ("fitness", "<f4", (experts,))]
    with (folder / "fitness.rows").open("ab") as file:
        np.save(file, np.array([3, clients]))
        np.save(file, np.array([(row, [1.0] * experts)], dtype=kind))
    check(folder, 2)
    assert rounds_of(folder) == ([1, 2], False)


def test_a_round_that_could_not_be_written_is_in_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FitnessFile(folder)
    file.append(1, filled(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("server_app.run_folder.matrices.durable_append", full)
        with pytest.raises(OSError, match="No space"):
            file.append(2, filled(2))
    file.append(3, filled(3))
    found = read_fitness(folder)
    assert found.rounds == [1, 3]
    np.testing.assert_array_equal(found.values, [filled(1), filled(3)])


def test_who_has_come_since_the_round_that_was_gone_back_to(folder: Path) -> None:
    file = FitnessFile(folder)
    for number, clients in ((1, 2), (2, 3), (3, 2), (4, 3)):
        file.append(number, filled(1, clients))
    found = read_fitness(folder)
    assert np.isnan(found.values[:, 2, 0]).tolist() == [True, False, True, False]
    np.testing.assert_array_equal(found.values[2, :2], filled(1, 2))
    with pytest.raises(ValueError, match=r"shape \(3, 5\) follows \(3, 2\)"):
        file.append(5, np.zeros((3, 5), dtype=np.float32))


def test_a_round_costs_what_it_changes(folder: Path) -> None:
    file, clients = FitnessFile(folder), 1000
    path, sizes = folder / "fitness.rows", [0]
    matrix = np.zeros((clients, 4), dtype=np.float32)
    for number in range(1, 51):
        matrix[number] += 1
        file.append(number, matrix)
        sizes.append(path.stat().st_size)
    first, *others = np.diff(sizes).tolist()
    # A row number and four numbers of four bytes; two headers of 128 bytes.
    assert first >= 20 * clients
    assert set(others) == {128 + 16 + 128 + 20}


def test_the_last_round_of_a_run_writes_no_more_than_its_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_written() -> int:
        return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])

    # The page shows all rounds; it is written as rarely as keeps it cheap.
    monkeypatch.setattr(LiveReport, "_write", lambda self: None)
    # The table has a header every twenty rounds.
    for name in ("flwr.expertfleet", "flwr.expertfleet.table"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    names, cost = [f"client-{n}" for n in range(50)], []
    with RunLog(settings_of(tmp_path)) as log:
        fitness = np.zeros((50, 2))
        strategy: Any = SimpleNamespace(fitness_matrix=lambda: fitness)
        log.open(strategy, 0, lambda: names)
        for number in range(10, 60):  # of two digits all
            before = bytes_written()
            fitness[number % 50] = number
            record = record_of(number)
            log.run.keep(number, record.to_json(), state_of(number))
            log.show(record, strategy)
            cost.append(bytes_written() - before)
    assert len({*cost[1:]}) == 1, cost
    assert read_assignments(log.run.path).values.shape == (50, 1, 2)


def test_a_run_of_an_earlier_version_is_read_and_gone_on_with(folder: Path) -> None:
    fitness = np.stack([filled(1), filled(2), filled(3)])
    names = np.array(["a", "b", "c"])
    np.savez(folder / "fitness.npz", fitness=fitness, rounds=[1, 2, 3], clients=names)
    check(folder, 3)
    file = FitnessFile(folder)
    file.cut(3)
    assert not (folder / "fitness.npz").exists()
    check(folder, 2)
    file.append(3, filled(3))
    check(folder, 3)


def test_what_cannot_be_read_is_said_in_one_line(folder: Path) -> None:
    with pytest.raises(RunFileError, match=r"has no fitness\.rows with a whole round$"):
        read_fitness(folder)
    (folder / "fitness.npz").write_bytes(b"PK\3\4")
    with pytest.raises(RunFileError, match=r"fitness\.npz cannot be read: .*"):
        read_fitness(folder)
    with pytest.raises(RunFileError, match=r"metrics\.jsonl has no finished round yet"):
        read_assignments(folder)
