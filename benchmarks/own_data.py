"""What a device's own data take: memory of a round, and time to read them again.

    python -m benchmarks.own_data [--repeat N]

Memory: 50 000 images of 32x32 colours, 154 MB, in one ``.npz`` file and in folders of
classes. Processes of their own answer the query (which decodes), train and evaluate on
them, as a device does; a peak is the kernel's (VmHWM), and counts from what the process
had when its message came. Time: 10 000 small PNG files, opened by one process and then
by another with the same state directory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from numpy.typing import NDArray

from common import wire
from common.data import HashedPieces
from common.flower_internals import TaskIdentity
from common.own.own_data import open_own_data
from common.settings import Settings
from common.shape import model_spec
from common.task import ImageTask

CLASSES = tuple("abcdefghij")
TASK = ImageTask(classes=CLASSES, size=(32, 32), scale="none")
IMAGES, FILES = 50_000, 10_000
MOST = 200
"""Megabytes of memory a round may take beyond the idle process."""

SHARE = 0.05
"""Of the first reading's time that a second one may take."""

CONFIG: dict[str, Any] = {
    "backbone": "cnn",
    "num-experts": 8,
    "local-epochs": 1,
    "batch-size": 16,
    "task": "task.toml",  # the devices are sent what is in it
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        kind, data, state = args.worker
        print(json.dumps(read(data, state) if kind == "read" else answer(*args.worker)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("one .npz file", write_npz), ("folders", write_folders)):
            data = Path(folder) / name.split()[-1]
            write(data, IMAGES)
            memory(name, data, Path(folder) / "state")
        data = Path(folder) / "files"
        write_folders(data, FILES)
        again(data, Path(folder), args.repeat)


def memory(name: str, data: Path, state: Path) -> None:
    """Print what messages about 154 MB of images take."""
    print(f"{IMAGES * 32 * 32 * 3 / 1e6:.0f} MB of images, {name}")
    for kind in ("query", "train", "evaluate"):
        idle, peak, seconds = worker(kind, data, state)
        print(
            f"  {kind:<9} {(peak - idle) / 1e6:6.0f} MB beyond the idle process's "
            f"{idle / 1e6:.0f} MB (at most {MOST}), {seconds:.1f} s",
            flush=True,
        )


def again(data: Path, folder: Path, repeat: int) -> None:
    """Print how long it takes to open what another process has read."""
    shares = []
    for number in range(repeat):
        state = folder / f"state-{number}"
        (first, _), (second, _) = (worker("read", data, state) for _ in range(2))
        shares.append(second / first)
        print(
            f"{FILES} PNG files: first {first:.2f} s, second {second:.3f} s, "
            f"{second / first:.2%} (at most {SHARE:.0%})",
            flush=True,
        )
    print(f"median {statistics.median(shares):.2%}")


def worker(kind: str, data: Path, state: Path) -> list[float]:
    """Return what a process of its own measures."""
    command = [sys.executable, "-m", "benchmarks.own_data", "--worker"]
    done = subprocess.run(
        [*command, kind, str(data), str(state)], check=True, stdout=subprocess.PIPE
    )
    numbers: list[float] = json.loads(done.stdout)
    return numbers


def read(data: str, state: str) -> tuple[float, int]:
    """Open the data once; return CPU seconds, this process's and its system's."""
    started = time.process_time()
    found = open_own_data(Path(data), TASK, HashedPieces(), Path(state))
    return time.process_time() - started, found.rows


def answer(kind: str, data: str, state: str) -> tuple[int, int, float]:
    """Be the device's process for one message; return its idle memory and its peak."""
    from client_app.app import app
    from client_app.device.profiler import peak_bytes

    content = question() if kind == "query" else order(evaluates=kind == "evaluate")
    node: Any = {"name": "bench", "data-path": data, "state-dir": state}
    context = Context(
        run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=CONFIG
    )
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    message = Message(content, 1, "train" if kind == "evaluate" else kind)
    message.metadata.__dict__["_message_id"] = "1"
    idle, started = peak_bytes(), time.perf_counter()
    reply = app(message=message, context=context)
    if reply.has_error():
        sys.exit(reply.error.reason)
    return idle, peak_bytes(), time.perf_counter() - started


def question() -> RecordDict:
    """Return the content of a query."""
    return wire.encode_query(wire.Query(task=TASK.to_json()))


def order(*, evaluates: bool) -> RecordDict:
    """Return an order for two experts: to train, or to evaluate the held-out part."""
    spec = model_spec(Settings.from_run_config(CONFIG), TASK)
    told = wire.TrainOrder(
        run="bench",
        server_round=1,
        experts=[0, 1],
        num_experts=spec.num_experts,
        top_k=spec.top_k,
        train=not evaluates,
        evaluate=True,
        task=TASK.to_json(),
    )
    vectors = spec.initial(0, ["extractor", "expert.0", "expert.1"])
    return wire.encode_order(told, wire.pack(vectors))


def images(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return noise, and classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return x, np.arange(count) % len(CLASSES)


def write_npz(path: Path, count: int) -> None:
    """Write a folder with one file of arrays."""
    path.mkdir()
    x, y = images(count)
    np.savez(path / "images.npz", x=x, y=y)


def write_folders(path: Path, count: int) -> None:
    """Write a folder for each class, and a PNG file for each image."""
    from PIL import Image

    for name in CLASSES:
        (path / name).mkdir(parents=True)
    for number, (x, y) in enumerate(zip(*images(count), strict=True)):
        Image.fromarray(x).save(path / CLASSES[y] / f"{number:05d}.png")


if __name__ == "__main__":
    main()
