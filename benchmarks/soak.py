"""Does the server's memory stay flat? Many rounds, many clients, one process.

``python -m benchmarks.soak --rounds 300 --clients 100`` runs FLEX-MoE on digits over
the in-process grid, samples the resident memory after every round and prints the slope
of a straight line through the samples after round 20.
"""

import argparse
import tempfile
from typing import Any

import numpy as np
import psutil

from server_app.commands.simulate import simulate
from server_app.rounds.loop import RoundLoop
from server_app.rounds.record import RoundRecord


def main() -> None:
    """Run and print the memory at some rounds and the slope."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=100)
    args = parser.parse_args()
    process = psutil.Process()
    memory: list[float] = []
    close = RoundLoop.close

    def sampled(self: RoundLoop, *given: Any) -> RoundRecord:
        record = close(self, *given)
        memory.append(process.memory_info().rss / 2**20)
        return record

    RoundLoop.close = sampled  # type: ignore[method-assign,assignment]
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "num-rounds": args.rounds,
            "partition": "iid",
            "local-epochs": 1,
            "eval-every": 50,
            "output-dir": folder,
        }
        simulate(config, args.clients)
    for index in sorted({0, 19, len(memory) // 2, len(memory) - 1}):
        print(f"round {index + 1:4d}: {memory[index]:7.1f} MiB")
    rounds = np.arange(20, len(memory))
    slope, _ = np.polyfit(rounds, memory[20:], 1)
    print(f"slope after round 20: {1024 * slope:.2f} KiB a round")


if __name__ == "__main__":
    main()
