"""Kill the server with SIGKILL at random points, resume, and compare the bits.

``python -m benchmarks.crash_resume --kills 50`` runs FLEX-MoE on digits once without
interruption, then as often as asked with a ``kill -9`` at a random moment followed by
``resume-from``, and compares the final models byte by byte.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    seconds : float
        When it was killed, after its start.
    rounds : int
        Rounds that had been checkpointed by then.
    identical : bool
        Whether the final model equals the uninterrupted one, byte by byte.
    """

    seconds: float
    rounds: int
    identical: bool


def _start(config: dict[str, Any]) -> Any:
    # Forked after the imports, so that they are shared.
    from server_app.simulate import simulate

    process = _PROCESSES.Process(target=simulate, args=(config, CLIENTS), daemon=True)
    process.start()
    return process


def _finish(config: dict[str, Any]) -> None:
    process = _start(config)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"a run ended with exit code {process.exitcode}")


def _only_run(folder: Path) -> Path | None:
    runs = [path.parent for path in folder.glob("*/run.json")]
    return runs[0] if runs else None


def _model(folder: Path) -> bytes:
    run = _only_run(folder)
    assert run is not None
    return (run / "model.safetensors").read_bytes()


def crashes(kills: int, seed: int, root: Path) -> Iterator[Crash]:
    """Yield the outcome of every kill.

    Parameters
    ----------
    kills : int
    seed : int
        Draws the moments of the kills.
    root : Path
        Directory for the runs.
    """
    rng = random.Random(seed)

    def config_in(name: str) -> dict[str, Any]:
        place = root / name
        return {**CONFIG, "output-dir": str(place), "state-dir": str(place / "gates")}

    _finish(config_in("warm-up"))
    started = time.monotonic()
    _finish(config_in("whole"))
    duration = time.monotonic() - started
    expected = _model(root / "whole")
    for number in range(kills):
        config = config_in(f"crash-{number}")
        moment = rng.uniform(0, duration)
        process = _start(config)
        process.join(moment)
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        folder = Path(config["output-dir"])
        run = _only_run(folder)
        saved = sorted((run / "checkpoints").glob("*.ckpt")) if run else []
        rounds = int(saved[-1].stem.removeprefix("round-")) if saved else 0
        # Killed before it had a run.json there is nothing to resume: start again.
        _finish({**config, "resume-from": str(run)} if run else config)
        identical = _model(folder) == expected
        yield Crash(seconds=moment, rounds=rounds, identical=identical)
        shutil.rmtree(folder)


def main() -> None:
    """Print one line per kill and the total."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    same = 0
    with tempfile.TemporaryDirectory() as root:
        for number, crash in enumerate(crashes(args.kills, args.seed, Path(root)), 1):
            same += crash.identical
            print(
                f"kill {number:3d} after {crash.seconds:6.3f} s, {crash.rounds} rounds "
                f"saved: {'identical' if crash.identical else 'DIFFERENT'}",
                flush=True,
            )
    print(f"{same} of {args.kills} final models are bit-identical")


if __name__ == "__main__":
    main()
