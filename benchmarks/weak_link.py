"""One round of 12 MB down and as much up over a weak link, with the rule and without.

``python -m benchmarks.weak_link --down 256 --up 256 --delay 0.6`` starts a SuperLink
and a SuperNode with TLS in network namespaces of their own (root, ``ip`` and ``tc`` are
needed), and prints the seconds beside those of the line alone. ``--cut up:4:90`` takes
the link away for 90 s when 4 MB have gone up; ``--without`` has messages cut as Flower
cuts them. What has not arrived after ``--limit`` seconds is said to be so.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from common.chunks import LARGEST, VARIABLE
from tests.links.weak_fleet import Cut, one_round, weak_fleet


def main() -> None:
    """Run one round and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--down", type=int, default=256, help="kbit/s to the device")
    parser.add_argument("--up", type=int, default=256, help="kbit/s from it")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, one way")
    parser.add_argument("--cut", metavar="WAY:MB:SECONDS", help="as in up:4:90")
    parser.add_argument("--without", action="store_true", help="as Flower cuts")
    parser.add_argument("--limit", type=float, default=2400.0, help="seconds")
    parser.add_argument("--run-config", default="{}", help="a JSON object")
    args = parser.parse_args()
    if args.without:
        os.environ[VARIABLE] = str(LARGEST)
    cut = None
    if args.cut:
        way, after, seconds = args.cut.split(":")
        cut = Cut(way=way, after=float(after), seconds=float(seconds))
    rates = {"down": args.down * 1000, "up": args.up * 1000}
    with (
        tempfile.TemporaryDirectory() as folder,
        weak_fleet(Path(folder), **rates, delay=args.delay) as (fleet, link),
    ):
        config = json.loads(args.run_config)
        ended = one_round(fleet, link, config, cut, args.limit)
        records = ended.run.records()
    down, up = ended.carried
    clients = [each for record in records for each in record["clients"]]
    if not any(each["replied"] for each in clients):
        print(
            f"no reply after {ended.seconds:.0f} s ({ended.status}): the link carried "
            f"{down / 1e6:.1f} MB down and {up / 1e6:.1f} MB up; "
            f"{ended.said.count('Connection attempt failed')} requests failed"
        )
        return
    [client] = clients
    payload = client["bytes_down"] * 8 / rates["down"]
    payload += client["bytes_up"] * 8 / rates["up"]
    sizes = [client[f"bytes_{way}"] / 1e6 for way in ("down", "up")]
    seconds = client["seconds_until_reply"]
    print(
        f"{sizes[0]:.1f} MB down and {sizes[1]:.1f} MB up: {seconds:.0f} s from order "
        f"to reply, {seconds / payload:.2f} times the line alone ({payload:.0f} s); "
        f"the link carried {down / 1e6:.1f} and {up / 1e6:.1f} MB in all; "
        f"{ended.said.count('Connection attempt failed')} requests failed"
    )
    print(
        "\n".join(
            line
            for line in ended.said.splitlines()
            if "loading " in line or "loaded " in line
        )
    )


if __name__ == "__main__":
    main()
