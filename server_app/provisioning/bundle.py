"""What one device is given: a tar of eight small files.

``ca.crt`` whom to trust; ``supernode.key`` and ``supernode.pub`` how it authenticates
to the SuperLink; ``client.key`` and ``client.crt`` how it does to any other service of
the fleet (mutual TLS); ``trusted.yaml`` whose apps it runs; ``superexec.secret`` how
the process that runs them proves itself to the SuperNode; ``device.toml`` where the
SuperLink is and who the device is.
``python -m client_app supernode DIRECTORY`` starts from the unpacked bundle.
"""

import io
import json
import tarfile
import time
from collections.abc import Mapping

from server_app.provisioning.members import Device, Members

SECRET = (".key", ".secret")
"""How names of secrets end: they are unpacked with mode 0600."""


def device_config(name: str, device: Device, members: Members) -> bytes:
    """Return ``device.toml``; ``[node-config]`` is Flower's, an owner may add to it."""
    lines = [
        f"superlink = {json.dumps(members.superlink)}",
        "",
        "[node-config]",
        f"name = {json.dumps(name)}",
    ]
    if device.data_path:
        lines.append(f"data-path = {json.dumps(device.data_path, ensure_ascii=False)}")
    if device.partition_id is not None:
        lines.append(f"partition-id = {device.partition_id}")
        lines.append(f"num-partitions = {members.size}")
    if device.expert_cap:
        lines.append(f"expert-cap = {device.expert_cap}")
    return "".join(f"{line}\n" for line in lines).encode()


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


def unpack(content: bytes) -> dict[str, bytes]:
    """Return the files of a tar that ``pack`` made; ``TarError`` if it is none."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar}
        return {name: file.read() for name, file in files.items() if file}
