"""Bytes and seconds of secure sums: ``python -m benchmarks.secure_sums``.

Fleets in this process, one in ten gone after shares were sent. A device's bytes are
those of all its messages up, and of what it is sent beside the model; plain is float32.
Seconds are the processor's, of one device and of the server's unmasking.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.secure_sums.masks import Member, Sharing, unmasked

EXPERTS, HELD = 8, 2


def one(members: int, extractor: int, expert: int, seed: int) -> dict[str, float]:
    """Return what one round costs.

    Parameters
    ----------
    members : int
    extractor, expert : int
        Their values.
    """
    rng = np.random.default_rng(seed)
    held = [[(m + n * 3) % EXPERTS for n in range(HELD)] for m in range(members)]
    holders = {"extractor": tuple(range(members))} | {
        f"expert.{e}": tuple(m for m in range(members) if e in held[m])
        for e in range(EXPERTS)
    }
    sizes = {p: extractor if p == "extractor" else expert for p in holders}
    sharing = Sharing(
        name=f"r/{seed}",
        holders=holders,
        sizes=sizes,
        threshold=members // 2 + 1,
        least=2,
    )
    fleet = {m: Member(m, sharing) for m in range(members)}
    units = {
        m: {p: rng.integers(-(2**40), 2**40, sizes[p]) for p in sharing.parts_of(m)}
        for m in fleet
    }
    spent = dict.fromkeys(fleet, 0.0)
    clock = time.process_time
    directory = {m: member.keys() for m, member in fleet.items()}
    sealed, masked, told = {}, {}, {}
    for m, member in fleet.items():
        started = clock()
        sealed[m] = member.shares(directory)
        spent[m] += clock() - started
    left = frozenset(m for m in fleet if m % 10 != 9)
    for m in left:
        mine = {other: boxes[m] for other, boxes in sealed.items() if other != m}
        started = clock()
        masked[m] = fleet[m].masked(units[m], mine)
        spent[m] += clock() - started
    for m in sorted(left)[: sharing.threshold]:
        started = clock()
        told[m] = fleet[m].unmask(left)
        spent[m] += clock() - started
    started = clock()
    found = unmasked(sharing, directory, masked, told, frozenset(fleet))
    server = clock() - started
    for part, of in holders.items():
        expected = sum(units[m][part] for m in of if m in left)
        assert np.array_equal(found[part], expected)
    boxes = statistics.mean(sum(map(len, each.values())) for each in sealed.values())
    shares = statistics.mean(
        16 * len(seeds) + 32 * len(keys) for seeds, keys in told.values()
    )
    plain = 4 * (extractor + HELD * expert)
    return {
        "plain": plain,
        "up": 64 + boxes + 2 * plain + shares,
        "down": 64 * members + boxes,
        "device": statistics.mean(spent[m] for m in told),
        "server": server,
    }


def main() -> None:
    """Print a line for each fleet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", default="10,50,100")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    shapes: Sequence[tuple[int, int]] = ((4160, 2410), (400_000, 100_000))
    for members in map(int, args.members.split(",")):
        for extractor, expert in shapes:
            runs = [one(members, extractor, expert, seed) for seed in range(args.seeds)]
            middle = {k: statistics.median(run[k] for run in runs) for k in runs[0]}
            device, server = ([run[k] for run in runs] for k in ("device", "server"))
            up, plain = middle["up"] / middle["plain"], middle["plain"] / 1e3
            print(
                f"{members:4} devices, {plain:6.0f} kB each: up {up:.2f} times, down "
                f"{middle['down'] / 1e3:.1f} kB more; device {min(device):.2f} to "
                f"{max(device):.2f} s, server {min(server):.2f} to {max(server):.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
