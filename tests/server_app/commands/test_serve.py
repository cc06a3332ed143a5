"""``python -m server_app serve --fleet`` as a process: its callers are the list's."""

import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from common.serving import inference_pb2 as pb
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.tensors import encode
from server_app.__main__ import main
from tests.server_app.test_run_source import train


@contextmanager
def served(run: Path, fleet: Path, log: Path) -> Iterator[str]:
    """Start the command on a free port; give its address."""
    command = [sys.executable, "-m", "server_app", "serve", "--run", str(run)]
    command += ["--fleet", str(fleet), "--listen", "127.0.0.1:0"]
    with log.open("w") as err, subprocess.Popen(command, stderr=err) as process:
        try:
            while not (found := re.search(r" on (\S+:\d+) \(TLS", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield found[1]
        finally:
            process.terminate()
    assert process.returncode == 0, log.read_text()


def call(address: str, fleet: Path, folder: Path, name: str) -> grpc.Channel:
    """Connect as a device, with what its bundle holds."""
    with tarfile.open(fleet / "bundles" / f"{name}.tar") as tar:
        tar.extractall(folder / name, filter="data")
    authority, key, certificate = (
        (folder / name / file).read_bytes()
        for file in ("ca.crt", "client.key", "client.crt")
    )
    return grpc.secure_channel(
        address, grpc.ssl_channel_credentials(authority, key, certificate)
    )


def ask(channel: grpc.Channel) -> grpc.StatusCode:
    x = np.zeros((2, 8, 8), np.uint8)
    try:
        reply = InferenceStub(channel).Predict(
            pb.PredictRequest(x=encode(x)), timeout=100
        )
    except grpc.RpcError as error:
        return error.code()
    assert len(reply.classes) == 2
    return grpc.StatusCode.OK


def test_a_listed_device_is_answered_until_it_is_removed(tmp_path: Path) -> None:
    run, fleet = train(tmp_path, **{"num-rounds": 1}), tmp_path / "fleet"

    def types(*arguments: str) -> None:
        assert main(["fleet", "--dir", str(fleet), *arguments]) == 0

    # Nothing listens on the discard port.
    types("init", "--host", "localhost", "--control", "127.0.0.1:9")
    types("add", "pi0", "pi1")
    with (
        served(run, fleet, tmp_path / "log") as address,
        call(address, fleet, tmp_path, "pi0") as pi0,
        call(address, fleet, tmp_path, "pi1") as pi1,
    ):
        assert [ask(pi0), ask(pi1)] == [grpc.StatusCode.OK] * 2
        types("remove", "pi0")
        assert ask(pi0) == grpc.StatusCode.PERMISSION_DENIED
        assert ask(pi1) == grpc.StatusCode.OK
        types("add", "pi2")
        with call(address, fleet, tmp_path, "pi2") as pi2:
            assert ask(pi2) == grpc.StatusCode.OK
