"""A fingerprint of the code that both sides run.

A SuperLink left over from another checkout hands its own ``common`` and ``client_app``
to the workers before the app bundle is looked at; the run then succeeds with the wrong
code. Clients therefore return this hash and the server refuses a mismatch.
"""

import hashlib
from functools import cache
from pathlib import Path


@cache
def code_hash() -> str:
    """Return 16 hex digits over the sources of ``common`` and ``client_app``."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in ("common", "client_app"):
        for path in sorted((root / package).rglob("*.py")):
            # Flower drops test files from an app bundle.
            if not path.name.startswith("test_"):
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]
