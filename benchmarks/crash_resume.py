"""Cut the server's power at random points, resume, and compare the bits.

``python -m benchmarks.crash_resume --kills 50`` runs FLEX-MoE on digits once without
interruption, then as often as asked with a cut followed by ``resume-from``, and
compares models, records and matrices. A cut is a ``kill -9``, half of them at a random
time and half of them right before or after something was synced, renamed, made or
removed; after it the disk keeps for certain only what was synced of the run's directory
and of the devices' state (``benchmarks.power_cut``).
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.power_cut import Disk, survive
from server_app.commands.simulate import simulate
from server_app.run_folder.matrices import read_assignments, read_fitness

CONFIG: dict[str, Any] = {
    "num-rounds": 6,
    "num-experts": 4,
    "local-epochs": 1,
    "drop-out": 0.2,
    "clients-per-round": 4,
    "eval-every": 3,
}
CLIENTS = 6

# Forked children start with everything imported; a kill then lands in a round, not in
# seconds of imports.
_PROCESSES = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Crash:
    """One interrupted and resumed run.

    Attributes
    ----------
    moment : str
        When the power went.
    recorded, saved : int
        The last round on record and the last one with a checkpoint, after that.
    resumed : bool
        Whether there was a run to go on with.
    identical : bool
        Whether the final model equals the uninterrupted one, byte by byte, the records
        of all rounds do but for the seconds, and no checkpoint was ahead of them.
    """

    moment: str
    recorded: int
    saved: int
    resumed: bool
    identical: bool


def _watched(config: dict[str, Any], place: Path, at: int, counted: Any) -> None:
    """Run with an eye on the disk; die at a moment if it comes."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with Disk(place, place.with_suffix(".journal"), die, at) as disk:
        simulate(config, CLIENTS)
        counted.value = disk.moments


def _finish(config: dict[str, Any]) -> None:
    process = _PROCESSES.Process(target=simulate, args=(config, CLIENTS), daemon=True)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"a run ended with exit code {process.exitcode}")


def _cut(config: dict[str, Any], place: Path, seconds: float | None, at: int) -> int:
    """Run until the power goes, after some seconds or at a moment; count moments."""
    counted = _PROCESSES.Value("i", 0)
    process = _PROCESSES.Process(
        target=_watched, args=(config, place, at, counted), daemon=True
    )
    process.start()
    process.join(seconds)
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return int(counted.value)


def _lose(place: Path, rng: random.Random) -> None:
    """Leave of a place what the power cut does."""
    journal, left = place.with_suffix(".journal"), place.with_suffix(".left")
    if journal.exists():
        survive(place, journal, left, rng)
        shutil.rmtree(place)
        left.rename(place)
        shutil.rmtree(journal)


def _only_run(folder: Path) -> Path | None:
    runs = [path.parent for path in folder.glob("*/run.json")]
    return runs[0] if runs else None


def _rounds(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # cut
            break
    return found


def _saved(run: Path) -> int:
    files = sorted((run / "checkpoints").glob("round-*.ckpt"))
    return int(files[-1].stem.removeprefix("round-")) if files else 0


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _timeless(inner)
            for key, inner in value.items()
            if key != "ended" and "seconds" not in key
        }
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _outcome(folder: Path) -> tuple[Any, ...]:
    """Return all that a run leaves and that does not depend on the clock."""
    run = _only_run(folder)
    assert run is not None
    learnt, held = read_fitness(run), read_assignments(run)
    matrices = learnt.rounds, learnt.values.tobytes(), held.values.tobytes()
    model = (run / "model.safetensors").read_bytes()
    return model, _timeless(_rounds(run)), matrices


def crashes(kills: int, seed: int, root: Path) -> Iterator[Crash]:
    """Yield the outcome of every cut.

    Parameters
    ----------
    kills : int
    seed : int
        Draws the moments, and what the disk keeps.
    root : Path
        Directory for the runs.
    """
    rng = random.Random(seed)

    def config_in(name: str) -> dict[str, Any]:
        place = root / name
        # As on devices: what is kept with the run is not synced.
        return {**CONFIG, "output-dir": str(place), "state-dir": str(place / "gates")}

    import_module("client_app.app")  # before the fork, so that it is shared
    _finish(config_in("warm-up"))
    _finish(config_in("whole"))
    expected = _outcome(root / "whole")
    started = time.monotonic()
    moments = _cut(config_in("counted"), root / "counted", None, 0)
    duration = time.monotonic() - started
    for number in range(kills):
        place, config = root / f"crash-{number}", config_in(f"crash-{number}")
        if number % 2:
            at = rng.randint(1, moments)
            moment = f"at moment {at:4d} of {moments}"
            _cut(config, place, None, at)
        else:
            seconds = rng.uniform(0, duration)
            moment = f"after {seconds:6.3f} s"
            _cut(config, place, seconds, 0)
        _lose(place, rng)
        run = _only_run(place)
        recorded = _rounds(run)[-1]["round"] if run and _rounds(run) else 0
        saved = _saved(run) if run else 0
        # Cut before it had a run.json there is nothing to resume: start again.
        _finish({**config, "resume-from": str(run)} if run else config)
        yield Crash(
            moment=moment,
            recorded=recorded,
            saved=saved,
            resumed=run is not None,
            identical=saved <= recorded and _outcome(place) == expected,
        )
        shutil.rmtree(place)


def main() -> None:
    """Print one line per cut and the total."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    same = 0
    with tempfile.TemporaryDirectory() as root:
        for number, crash in enumerate(crashes(args.kills, args.seed, Path(root)), 1):
            same += crash.identical
            print(
                f"cut {number:3d} {crash.moment}: {crash.recorded} rounds on record, "
                f"{crash.saved} saved: "
                f"{'identical' if crash.identical else 'DIFFERENT'}",
                flush=True,
            )
    print(f"{same} of {args.kills} runs are bit-identical")


if __name__ == "__main__":
    main()
