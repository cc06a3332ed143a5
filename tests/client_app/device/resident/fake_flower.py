"""A resident process without torch; its messages do what their first word says."""

import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from client_app.device.resident import hand_over, keeper


def main(arguments: list[str]) -> None:
    _, folder, parent, listener = arguments
    starts = Path(folder, "starts")
    with starts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if Path(folder, "die").exists():
        sys.exit(1)
    keeper.keep(folder, int(listener), os.pidfd_open(int(parent)), flower)


def flower() -> None:
    """What a message is; its words are as in a command line."""
    word, *rest = sys.argv[1:]
    print(f"{word} in {os.getpid()} of {os.getppid()}", flush=True)
    if word == "exit":
        sys.exit(int(rest[0]))
    if word == "import":  # as Flower imports an app
        sys.path.insert(0, rest[0])
        the_app: Any = importlib.import_module("the_app")

        print(f"imported {the_app.__file__} in {the_app.IMPORTED_BY}", flush=True)
        print(f"spec {the_app.__spec__.name} {the_app.more.VALUE}", flush=True)
        if len(rest) > 1 and rest[1].isdigit():
            the_app.tell(int(rest[1]))
    if word == "threads":
        print(threading.active_count(), Path("/proc/self/oom_score_adj").read_text())
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "work":
        signal.signal(signal.SIGTERM, lambda number, _: ended(rest[0]))
        Path(rest[0]).write_text(str(os.getpid()))
        while True:
            time.sleep(0.05)


def ended(file: str) -> None:
    Path(file).with_suffix(".ended").touch()
    sys.exit(0)


if __name__ == "__main__":
    hand_over._START = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from tests.client_app.device.resident.fake_flower import main; "
        "main(sys.argv[1:])"
    )
    sys.exit(hand_over.main(sys.argv[1:]))
