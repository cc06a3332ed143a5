"""A device without Docker: who trains is another user than who owns the device's key.

The commands are those of the units in ``docker/``, under two users made up for them.
"""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.deployment.fleet import ROOT, Fleet
from tests.deployment.program import Program
from tests.deployment.test_survival import CONFIG, repliers
from tests.ports import free_port

SUPERNODE, TRAINER = 44001, 44002
AS = ["setpriv", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]


def as_user(uid: int, *command: str) -> list[str]:
    return [*AS, f"--reuid={uid}", f"--regid={uid}", *command]


def able() -> bool:
    """Whether another user can start this Python at all."""
    if os.geteuid() or not shutil.which("setpriv"):
        return False
    python = sysconfig.get_path("scripts") + "/python"
    # Through `env`: what `setpriv` starts itself is looked up with root's rights.
    command = as_user(TRAINER, "env", python, "-c", "import flwr, client_app")
    return subprocess.run(command, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.deployment,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not able(), reason="needs root, and a Python others may start"),
]


def exec_start(unit: str, **places: str) -> list[str]:
    """The command of a unit, with its places exchanged."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "docker" / unit)
    words = shlex.split(parser["Service"]["ExecStart"])
    for old, new in places.items():
        words = [re.sub(rf"(?<=[= \"]){old}|^{old}", new, word) for word in words]
    return words


def owned(folder: Path, uid: int) -> Path:
    folder.mkdir(exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)
    folder.chmod(0o700)
    return folder


def test_the_process_that_trains_cannot_read_the_device_s_key(fleet: Fleet) -> None:
    old = fleet.devices[2]
    old.stop()
    # Homes that others may go through, as /etc and /var/lib are.
    home = Path("/tmp") / f"expertfleet-two-users-{os.getpid()}"
    home.mkdir(mode=0o755)
    try:
        bundle = owned(
            Path(shutil.copytree(fleet.folder / "client-2", home / "etc")), SUPERNODE
        )
        state = owned(home / "trainer", TRAINER)
        secret = owned(home / "credentials", TRAINER) / "superexec.secret"
        shutil.copy(bundle / "superexec.secret", secret)
        os.chown(secret, TRAINER, TRAINER)
        port = str(free_port())
        scripts = sysconfig.get_path("scripts")
        places = {
            "/opt/expertfleet/bin": scripts,
            "/etc/expertfleet": str(bundle),
            "/var/lib/expertfleet-trainer": str(state),
            "%d": str(secret.parent),
            "127.0.0.1:9094": f"127.0.0.1:{port}",
            "--port=9094": f"--port={port}",
        }
        node_home = owned(home / "node-home", SUPERNODE)
        trainer_home = owned(home / "trainer-home", TRAINER)
        path = f"PATH={scripts}:{os.environ['PATH']}"
        node = fleet.program(
            "two-users-node",
            as_user(
                SUPERNODE,
                *("env", f"FLWR_HOME={node_home}", f"HOME={node_home}"),
                *exec_start("expertfleet-device.service", **places),
            ),
        )
        trainer = fleet.program(
            "two-users-trainer",
            as_user(
                TRAINER,
                *("env", f"FLWR_HOME={trainer_home}", f"HOME={trainer_home}", path),
                *exec_start("expertfleet-trainer.service", **places),
            ),
        )
        _train(fleet, node, trainer, state, bundle)
    finally:
        shutil.rmtree(home)
        fleet.repair()


def _train(
    fleet: Fleet, node: Program, trainer: Program, state: Path, bundle: Path
) -> None:
    try:
        node.start()
        trainer.start()
        fleet.until("the device to be back", fleet.all_online)
        run = fleet.submit({**CONFIG, "num-rounds": 1, "min-replies": 3, "seed": 9})
        assert fleet.finish(run) == "finished:completed", (
            fleet.log(run) + node.tail() + trainer.tail()
        )
        assert "client-2" in repliers(run.records()[0])
        gates = list(state.rglob("gate-*.npy"))
        assert gates
        assert {path.stat().st_uid for path in gates} == {TRAINER}
        for uid, path, readable in (
            (TRAINER, bundle / "supernode.key", False),
            (TRAINER, bundle / "client.key", False),
            (SUPERNODE, bundle / "supernode.key", True),
            (SUPERNODE, gates[0], False),
        ):
            ran = subprocess.run(as_user(uid, "cat", str(path)), capture_output=True)
            assert (ran.returncode == 0) is readable, (uid, path)
    finally:
        for program in (trainer, node):
            if program.running:
                program.stop()
