"""``python -m client_app serve`` as a process: TLS, a newer round, SIGTERM."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from client_app.kept.snapshot import DeviceSource
from common.serving import inference_pb2 as pb
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.tensors import decode, encode
from tests.client_app.kept.test_snapshot import keep
from tests.common.serving.support import Authority, images


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Authority]]:
    keep(tmp_path / "state", server_round=1)
    ca = Authority(tmp_path / "ca")
    certificate, key = ca.issue("localhost")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "client_app", "serve", "--poll", "0.1"),
            *("--state-dir", str(tmp_path / "state"), "--listen", "localhost:0"),
            *("--tls-cert", str(certificate), "--tls-key", str(key)),
            *("--tls-ca", str(ca.path)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = []
        # A warning may come first; the lines end with the process.
        for line in process.stderr:
            said.append(line)
            if found := re.search(
                r"serving r, round 1, on (localhost:\d+) "
                r"\(TLS, client certificates required;",
                line,
            ):
                break
        else:
            pytest.fail("".join(said))
        yield process, found[1], ca
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_device_serves_swaps_and_ends(
    server: tuple[subprocess.Popen[str], str, Authority], tmp_path: Path
) -> None:
    process, address, ca = server
    certificate, key = (path.read_bytes() for path in ca.issue("app"))
    credentials = grpc.ssl_channel_credentials(ca.path.read_bytes(), key, certificate)
    source = DeviceSource(tmp_path / "state")
    x = images(4)
    asked = pb.PredictRequest(x=encode(x))
    with grpc.secure_channel(address, credentials) as channel:
        stub = InferenceStub(channel)
        for newest in (1, 2, 3):
            if newest > 1:
                keep(tmp_path / "state", server_round=newest)
            while (reply := stub.Predict(asked, timeout=100)).model.round != newest:
                assert process.poll() is None
            found = decode(reply.probabilities, "probabilities")
            expected = source.load().predict(x).probabilities
            np.testing.assert_allclose(found, expected, atol=1e-5)

        def ask(_: int) -> grpc.StatusCode:
            try:
                stub.Predict(asked, timeout=100)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(ask, range(40)))
            later = [pool.submit(ask, n) for n in range(200)]
            process.send_signal(signal.SIGTERM)
            codes += [call.result() for call in later]
    assert process.wait(timeout=100) == 0
    # Answered or never begun. gRPC says CANCELLED of a call that had reached the port
    # but no handler yet.
    never_begun = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert set(codes) <= {grpc.StatusCode.OK, *never_begun}
    assert codes[:40] == [grpc.StatusCode.OK] * 40
    assert process.stderr is not None
    log = process.stderr.read()
    assert "now serving r, round 3" in log
    assert log.rstrip().endswith("stopped")
    assert "Traceback" not in log
