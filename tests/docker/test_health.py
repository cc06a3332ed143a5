"""The health check of the containers."""

import socket
import subprocess
import threading

import pytest

from tests.docker.support import DOCKER


@pytest.mark.parametrize(
    ("kind", "answer", "healthy"),
    [
        ("http", b"HTTP/1.1 200 OK\r\n\r\n", True),
        ("http", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", False),
        ("http", b"", False),
        ("grpc", b"\0\0\0\x04\0\0\0\0\0", True),
        ("grpc", b"HTTP/1.1 400 Bad Request", False),
        ("grpc", b"", False),
    ],
)
def test_a_health_check_wants_an_answer(
    kind: str, answer: bytes, healthy: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard = b""  # in pieces, as a shell writes
                while not heard.endswith((b"Host: localhost\r\n\r\n", bytes(5))):
                    heard += connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        command = ["bash", str(DOCKER / "health.sh"), kind, port, "/health"]
        ran = subprocess.run(command, capture_output=True, timeout=60)
        thread.join()
    assert (ran.returncode == 0) is healthy
    nobody = subprocess.run(command, capture_output=True, timeout=60)
    assert nobody.returncode != 0


def test_a_real_grpc_server_is_healthy() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        command = ["bash", str(DOCKER / "health.sh"), "grpc", str(port)]
        assert subprocess.run(command, timeout=60).returncode == 0
    finally:
        server.stop(None).wait()
