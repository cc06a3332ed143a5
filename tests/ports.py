"""Ports of the loopback for servers that a test starts later, in another process."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a TCP port that nobody listens on, and that nobody else is given.

    It is below those that systems hand to outgoing connections (32768 on, Linux; 49152
    on, macOS): one of them could take the port while the server is starting.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
