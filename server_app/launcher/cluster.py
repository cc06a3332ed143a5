"""A Ray cluster that is there already: checked before a run, and given the run's code.

Machines need the environment (Python, Ray, Flower, torch, each of the same version)
and the data, at the same path as here. The code is sent to them. Whatever is missing is
told in one line before anything starts; Ray itself would wait for ever.

Not here: what the machines are asked, in a process of its own (``machines``).
"""

import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.text import first_line, reason
from server_app.launcher.app_folder import app_folder
from server_app.launcher.config import RunConfigError

PACKAGES = ("flwr", "numpy", "torch")
"""What makes other bits, or none, where another version of it is installed."""

_ADDRESS = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})")
_VERSION = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
_SETUP = "Failed to set up runtime environment"

CONNECT, JOIN, FREE, ANSWER = 5.0, 45.0, 20.0, 120.0
"""Seconds for the port to open, for Ray to join, for what an earlier run held to be
free, and for the machines to answer."""


class ClusterError(RunConfigError):
    """A cluster that the run cannot have; the message is one readable line."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run wants of a cluster.

    Attributes
    ----------
    cpus : int
        Cores of one client or cell, all on one machine.
    gpus : float
        The same of GPUs.
    all_free : bool
        Whether it takes every core of the cluster and does not begin without.
    same : mapping of str to sequence of Path
        What is read, by setting: has to be the same on every machine.
    shared : mapping of str to Path
        Directories, by setting, that all machines have to see as one.
    """

    cpus: int = 1
    gpus: float = 0.0
    all_free: bool = False
    same: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    shared: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClusterSize:
    """What a cluster has: machines that are used, and how many tasks fit at once."""

    machines: int
    places: int
    free_cpus: float


def code_archive(app: Path, into: Path, more: Iterable[str] = ()) -> Path:
    """Write what Flower would send of an app as a zip file, and return its path.

    Parameters
    ----------
    app : Path
        Directory of its ``pyproject.toml``.
    into : Path
        A directory.
    more : iterable of str
        Packages beside it of which all modules are added.
    """
    # Late: help and completion are to be there at once.
    from common.flower_internals import build_fab_from_disk

    archive = into / "code.zip"
    archive.write_bytes(build_fab_from_disk(app_folder(app, into)))
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        for package in more:
            for path in sorted((app / package).rglob("*.py")):
                file.write(path, path.relative_to(app))
    return _unlike_others(archive)


def _unlike_others(archive: Path) -> Path:
    """Make an archive another one to Ray, which names them by content.

    Ray removes one when a job that used it is over, also where the next has begun.
    """
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(f".sent/{uuid.uuid4().hex}", "")
    return archive


def cluster_environment(address: str, archive: Path) -> dict[str, str]:
    """Return what makes a program's own ``ray.init`` join a cluster with our code.

    Ray reads both; the second is how ``ray job submit`` hands a job its environment,
    and is merged with what the program asks for.
    """
    job = {"runtime_env": {"working_dir": str(archive)}}
    return {"RAY_ADDRESS": address, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}


def read_by_clients(*configs: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return what clients read of the disk under complete run-configs, by setting.

    Only what is here: what is not will be downloaded, or is refused by the run.
    """
    # Late: other apps have other settings.
    from common.data.datasets import own_files

    found: dict[str, dict[Path, None]] = {"data-dir": {}, "pretrained": {}}
    for config in configs:
        folder = Path(str(config.get("data-dir", ""))).expanduser().absolute()
        whole = config.get("task") or config.get("partition") == "folders"
        names = own_files(
            str(config.get("dataset", "")), str(config.get("reader", "")), alone=True
        )
        data = [folder] if whole else [folder / name for name in names]
        found["data-dir"] |= dict.fromkeys(data)
        if given := str(config.get("pretrained", "")):
            found["pretrained"][Path(given).expanduser().absolute()] = None
    return {
        key: there
        for key, paths in found.items()
        if (there := [path for path in paths if path.exists()])
    }


def check_cluster(
    address: str, archive: Path, needs: Needs, env: Mapping[str, str] = os.environ
) -> ClusterSize:
    """Return what a cluster has.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of its head, as ``ray start --head`` prints it.
    archive : Path
        See :func:`code_archive`.
    needs : Needs
    env : mapping of str to str
        Environment of the process that asks.

    Raises
    ------
    ClusterError
        If it cannot be reached, runs other versions, or lacks what the run needs.
    """
    _check_port(address)
    with subprocess.Popen(
        # -P: the modules beside it are no top-level modules.
        [sys.executable, "-P", str(Path(__file__).with_name("machines.py"))],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**env, "RAY_USAGE_STATS_ENABLED": "0"},
        cwd=archive.parent,
        start_new_session=True,
    ) as process:
        try:
            # The run begins when this one's job is over.
            own = archive.with_name("asked.zip")
            _unlike_others(Path(shutil.copyfile(archive, own)))
            return _ask(_Dialogue(process, address), own, needs)
        finally:
            process.kill()


def _check_port(address: str) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ClusterError(
            f"ray-address = {address!r} is not allowed: HOST:PORT, as "
            "`ray start --head` prints it"
        )
    try:
        host = match[1].strip("[]")
        socket.create_connection((host, int(match[2])), timeout=CONNECT).close()
    except OSError as error:
        raise ClusterError(
            f"ray-address = {address!r}: no Ray cluster answers there ({reason(error)})"
        ) from None


class _Dialogue:
    """Questions to the process that has joined, and its answers."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        self._process, self.address = process, address

    def ask(self, seconds: float, late: str, **question: Any) -> Any:
        """Return what is answered within so many seconds."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with suppress(BrokenPipeError):  # it has ended: there is no answer
            stdin.write(json.dumps(question).encode() + b"\n")
        # Without a buffer: what lies in one, `select` does not see.
        ready, _, _ = select.select([stdout], [], [], seconds)
        line = stdout.readline() if ready else b""
        if not line:
            raise self.error(late)
        answer = json.loads(line)
        if "error" in answer:
            raise self.error(_told(answer["error"]))
        return answer

    def error(self, what: str) -> ClusterError:
        """Return the error of this cluster."""
        return ClusterError(f"ray-address = {self.address!r}: {what}")


def _told(error: str) -> str:
    """Return what an error of Ray means."""
    if "Version mismatch" in error and len(found := _VERSION.findall(error)) == 2:
        there, here = (f"Ray {ray} and Python {python}" for ray, python in found)
        return f"the cluster runs {there}, this machine {here}: they have to be equal"
    first, *more = error.strip().splitlines() or [""]
    # The cause is the last line, also of a traceback.
    return first_line(f"{first} {more[-1]}" if _SETUP in first and more else first)


def _ask(cluster: _Dialogue, archive: Path, needs: Needs) -> ClusterSize:
    address = cluster.address
    nodes = cluster.ask(
        JOIN,
        f"what answers there is no Ray cluster, or did not let us in within {JOIN:.0f} "
        "s; a run has to be started on one of the cluster's machines",
        address=address,
        archive=str(archive),
    )["nodes"]
    used = {node["id"]: places for node in nodes if (places := _places(node, needs))}
    if not used:
        most = max(node["cpus"] for node in nodes)
        gpus = max(node["gpus"] for node in nodes)
        raise cluster.error(
            f"{needs.cpus} cores and {needs.gpus:g} GPUs are wanted for one client, "
            f"no machine has more than {most:g} and {gpus:g}"
        )
    names = {node["id"]: f"machine {node['ip']}" for node in nodes}
    with _marks(needs.shared) as marks:
        paths = [str(path) for each in needs.same.values() for path in each]
        answer = cluster.ask(
            ANSWER,
            f"its {len(used)} machines did not all answer within {ANSWER:.0f} s",
            nodes=[*used],
            paths=paths + [str(mark) for mark in marks.values()],
            packages=PACKAGES,
        )
    for node, there in zip([*used], answer["there"], strict=True):
        if there is None:
            del used[node]
        else:
            _compare(names[node], answer["here"], there, needs, marks)
    if not used:
        raise cluster.error("all its machines that fit have gone since it answered")
    cores = cluster.ask(
        ANSWER,
        f"it did not say within {ANSWER:.0f} s how many cores are free",
        free=None if needs.all_free else needs.cpus,
        patience=FREE if needs.all_free else 0.0,
    )
    free, total = cores["free"], cores["total"]
    if needs.all_free and free < total:
        raise cluster.error(
            f"{free:g} of its {total:g} cores are free: a simulation takes all, "
            "and would wait for those that others hold"
        )
    return ClusterSize(machines=len(used), places=sum(used.values()), free_cpus=free)


def _places(node: Mapping[str, Any], needs: Needs) -> int:
    """Return how many clients fit on a machine at once, as Flower counts them."""
    places = int(node["cpus"] / needs.cpus)
    return min(places, int(node["gpus"] / needs.gpus)) if needs.gpus else places


def _compare(
    machine: str,
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    needs: Needs,
    marks: Mapping[str, Path],
) -> None:
    for name, version in here["packages"].items():
        if there["packages"][name] != version:
            raise ClusterError(
                f"{machine} of the cluster has {name} {there['packages'][name]}, this "
                f"one {version}: they have to be equal"
            )
    for key, paths in needs.same.items():
        for path in map(str, paths):
            if there["paths"][path] != here["paths"][path]:
                how = "differs" if there["paths"][path] else "is missing"
                raise ClusterError(
                    f"{key}: {path} {how} on {machine} of the cluster: every machine "
                    "needs the same data at the same path"
                )
    for key, mark in marks.items():
        if there["paths"][str(mark)] is None:
            raise ClusterError(
                f"{key} = {str(mark.parent)!r} is not shared with {machine} of the "
                "cluster: what runs goes from machine to machine, so it has to be one "
                "directory of all (NFS, say)"
            )


@contextmanager
def _marks(folders: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Put a file into each of some directories, as long as others look for it."""
    with ExitStack() as stack:
        marks = {}
        for key, folder in folders.items():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(
                    tempfile.NamedTemporaryFile(prefix=".shared-", dir=folder)
                )
                marks[key] = Path(file.name)
            except OSError as error:
                raise ClusterError(
                    f"{key} = {str(folder)!r} cannot be written to: {reason(error)}"
                ) from None
        yield marks
