"""What one device is given: a tar of six small files.

``ca.crt`` whom to trust; ``supernode.key`` and ``supernode.pub`` how it authenticates
to the SuperLink; ``client.key`` and ``client.crt`` how it does to any other service of
the fleet (mutual TLS); ``device.toml`` where the SuperLink is and who the device is.
``python -m client_app supernode DIRECTORY`` starts from the unpacked bundle.
"""

import io
import json
import tarfile
import time
from collections.abc import Mapping

SECRET = ".key"
"""How names of private keys end: they are unpacked with mode 0600."""


def device_config(
    name: str,
    superlink: str,
    *,
    partition_id: int,
    num_partitions: int,
    expert_cap: int,
) -> bytes:
    """Return ``device.toml``; ``[node-config]`` is Flower's, an owner may add to it."""
    lines = [
        f"superlink = {json.dumps(superlink)}",
        "",
        "[node-config]",
        f"name = {json.dumps(name)}",
        f"partition-id = {partition_id}",
        f"num-partitions = {num_partitions}",
    ]
    if expert_cap:
        lines.append(f"expert-cap = {expert_cap}")
    return ("\n".join(lines) + "\n").encode()


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of these files, without any trace of who packed it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = int(time.time())
            entry.mode = 0o600 if name.endswith(SECRET) else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
