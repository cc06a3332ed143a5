"""The demo fleet of docker/compose.demo.yaml, built and started for tests.

The engine is whatever ``docker`` on this machine talks to. Where it is a process of
this machine and this is root, a test can also slow down the link of a container.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "expertfleet-test"
DEVICES = ("small", "medium", "large")
RESULTS = "/opt/expertfleet/results"
PATIENCE = 900.0
"""Seconds after which anything awaited is taken for lost: qemu is slow."""

LIST_NODES = """
import json, pathlib
from server_app.provisioning.control_api import ControlAPI
with ControlAPI("superlink:8000", pathlib.Path("fleet/ca.crt")) as api:
    print(json.dumps([(node.name, node.node_id, node.status) for node in api.nodes()]))
"""


PEAK = (
    "cat /sys/fs/cgroup/memory.peak 2>/dev/null"
    " || cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
)
"""The most memory a container has had since it started, file cache included."""
KILLS = (
    "cat /sys/fs/cgroup/memory.events 2>/dev/null"
    " || cat /sys/fs/cgroup/memory/memory.oom_control"
)


@dataclass(frozen=True)
class Run:
    """One submitted run.

    Attributes
    ----------
    title : str
    number : str
        Flower's.
    output : str
        Its ``output-dir`` in the server's container.
    submitted : float
        When, in seconds of the monotonic clock.
    """

    title: str
    number: str
    output: str
    submitted: float


class Demo:
    """The running fleet.

    Parameters
    ----------
    folder : Path
        Where its keys go.

    Attributes
    ----------
    seconds : dict of str to float
        How long things took.
    peaks : dict of str to float
        The most memory of containers and training processes so far, in MB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Whoever owns the keys runs the containers, and root shall not.
        user = f"{os.getuid() or 1000}:{os.getgid() or 1000}"
        self._env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "FLEET_DIR": str(folder),
            "RUN_AS": user,
            "FLEET_PORT": "0",
            "TASK": str(folder / "demo-data/images/task.toml"),
        }
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, float] = {}

    def docker(self, *arguments: str, timeout: float = PATIENCE) -> str:
        """Run docker; return what it prints, fail if it fails."""
        return self._run(["docker", *arguments], timeout)

    def compose(self, *arguments: str, timeout: float = PATIENCE) -> str:
        """Run docker compose on the demo."""
        file = str(ROOT / "docker" / "compose.demo.yaml")
        return self.docker("compose", "--file", file, *arguments, timeout=timeout)

    def operator(self, *command: str) -> str:
        """Run a command as the server's operator does."""
        flags = ("--rm", "--no-TTY", "--use-aliases")
        return self.compose("run", *flags, "operator", *command)

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a running container."""
        return self.compose("exec", "--no-TTY", service, *command)

    def python(self, service: str, code: str) -> str:
        """Run Python code in a running container."""
        return self.execute(service, "python", "-c", code).strip()

    def _run(self, command: list[str], timeout: float) -> str:
        ran = subprocess.run(
            command, env=self._env, capture_output=True, text=True, timeout=timeout
        )
        if ran.returncode:
            said = "\n".join((ran.stdout + ran.stderr).splitlines()[-40:])
            raise AssertionError(f"{' '.join(command)}: {ran.returncode}\n{said}")
        return ran.stdout

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long something takes."""
        start = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - start

    def build(self) -> None:
        """Build every image."""
        for service in ("superlink", "proxy", "small-supernode", "medium-supernode"):
            with self.timed(f"build {service}"):
                self.compose("build", service, timeout=7200)

    def start(self) -> None:
        """Make the fleet and start it, as the documentation says."""
        with self.timed("demo.sh"):
            self._run([str(ROOT / "docker" / "demo.sh")], PATIENCE)
        self.until("all devices online", lambda: self.states() == ["online"] * 3)

    def stop(self) -> None:
        """Remove everything but the images."""
        self.compose("--profile", "operator", "down", "--volumes", "--timeout", "5")

    def nodes(self) -> dict[str, tuple[int, str]]:
        """Flower's number for every device and its state, by name."""
        said = self.operator("python", "-c", LIST_NODES)
        return {name: (number, state) for name, number, state in json.loads(said)}

    def states(self) -> list[str]:
        """The state of every device."""
        return [state for _, state in self.nodes().values()]

    def submit(self, title: str, config: Mapping[str, Any]) -> Run:
        """Submit a run of the image's app; no two have the same title."""
        started = time.monotonic()
        output = f"{RESULTS}/{title.replace(' ', '-')}"
        values = {**config, "output-dir": output}
        text = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
        command = ["python", "-m", "server_app", "fleet", "run", "--detach"]
        said = self.operator(*command, "--run-config", text)
        return Run(title, said.split()[-1], output, started)

    def status(self, run: Run) -> str:
        """Flower's word about a run."""
        command = ["flwr", "list", "fleet", "--run-id", run.number, "--format", "json"]
        said = self.operator(*command)
        return str(json.loads(said[said.index("{") :])["runs"][0]["status"])

    def finish(self, run: Run) -> list[dict[str, Any]]:
        """Wait for the successful end of a run; return its rounds."""
        self.until(
            "the end of the run", lambda: self.status(run).startswith("finished"), 20
        )
        self.seconds[run.title] = time.monotonic() - run.submitted
        records = self.records(run)
        self._measure(run, records)
        assert self.status(run) == "finished:completed", self.logs()
        return records

    def records(self, run: Run) -> list[dict[str, Any]]:
        """The rounds of a run done so far."""
        command = f"cat {run.output}/*/metrics.jsonl"
        said = self.execute("superexec", "sh", "-c", command)
        return [json.loads(line) for line in said.splitlines()]

    def gates(self, device: str, run: Run) -> dict[str, str]:
        """Paths (``DEVICE/FILE``) and hashes of the gates a device keeps for a run."""
        folder = self.execute("superexec", "ls", run.output).strip()
        command = f"cd /state/{folder}; sha256sum */gate-*.npy"
        said = self.execute(f"{device}-superexec", "sh", "-c", command)
        return {name: digest for digest, name in map(str.split, said.splitlines())}

    def trains(self, device: str) -> bool:
        """Whether a device is at work on a message."""
        container = self.container(f"{device}-superexec")["Id"]
        return "flwr-clientapp" in self.docker("top", container)

    def container(self, service: str) -> dict[str, Any]:
        """What docker knows of a service's container."""
        number = self.compose("ps", "--all", "--quiet", service).strip()
        found: dict[str, Any] = json.loads(self.docker("inspect", number))[0]
        return found

    def cut_power(self, service: str) -> None:
        """SIGKILL every process of a container but its init, which then ends."""
        with pytest.raises(AssertionError, match="137"):
            self.execute(service, "sh", "-c", "kill -9 -1; sleep 60")

    @contextmanager
    def memory_limit(self, service: str, limit: str) -> Iterator[None]:
        """Let a running container have less memory for a while."""
        container = self.container(service)
        self._limit_memory(container["Id"], limit)
        try:
            yield
        finally:
            before = str(container["HostConfig"]["Memory"])
            self._limit_memory(container["Id"], before)

    def _limit_memory(self, container: str, limit: str) -> None:
        update = ["update", "--memory", limit, "--memory-swap", limit]
        self.docker(*update, container)

    def out_of_memory_kills(self, service: str) -> int:
        """How many processes of a container the kernel has killed for its limit."""
        said = self.execute(service, "sh", "-c", KILLS)
        return int(dict(map(str.split, said.splitlines()))["oom_kill"])

    def slow_down(self, service: str, rate: str) -> None:
        """Limit what a container sends on every link it has.

        Skips where the engine's containers are out of reach.
        """
        if os.getuid() or not shutil.which("tc") or not shutil.which("nsenter"):
            pytest.skip("a slow link needs root, nsenter and tc")
        inside = ["nsenter", "--target", str(self.container(service)["State"]["Pid"])]
        inside.append("--net")
        links = json.loads(self._run([*inside, "ip", "-json", "link"], 60))
        for name in (link["ifname"] for link in links if link["ifname"] != "lo"):
            shape = ["rate", rate, "burst", "32kbit", "latency", "400ms"]
            command = ["tc", "qdisc", "add", "dev", name, "root", "tbf", *shape]
            self._run([*inside, *command], 60)

    def until(
        self, what: str, condition: Callable[[], Any], every: float = 5.0
    ) -> None:
        """Wait for something; fail with the containers' logs if it never comes.

        Asking costs a second of a processor, of which the emulated device is short:
        Flower gives up a task whose process is not up within 30 s.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._holds(condition):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {PATIENCE:.0f} s for {what}\n{self.logs()}")
            time.sleep(every)

    @staticmethod
    def _holds(condition: Callable[[], Any]) -> bool:
        try:
            return bool(condition())
        except AssertionError:  # a container that is just starting again
            return False

    def logs(self) -> str:
        """The ends of all logs."""
        return self.compose("logs", "--tail", "25", "--no-color")

    def _measure(self, run: Run, records: list[dict[str, Any]]) -> None:
        """Note the seconds of a run's rounds and all memory peaks so far."""
        for record in records:
            self.seconds[f"{run.title}: round {record['round']}"] = record["seconds"]
            for client in record["clients"]:
                if client["memory_peak"]:
                    name = f"{client['client']}: process that trains"
                    self._note_peak(name, client["memory_peak"])
        for service in sorted(self.compose("ps", "--services").split()):
            self._note_peak(service, int(self.execute(service, "sh", "-c", PEAK)))

    def _note_peak(self, name: str, nbytes: int) -> None:
        # A container that was started again has forgotten its own.
        self.peaks[name] = max(self.peaks.get(name, 0.0), nbytes / 1e6)

    def sizes(self) -> dict[str, float]:
        """The size of every image, in MB."""
        names = self.compose("config", "--images").split()
        return {
            name: int(self.docker("image", "inspect", "-f", "{{.Size}}", name)) / 1e6
            for name in sorted(set(names))
        }
