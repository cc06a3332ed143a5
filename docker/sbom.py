"""Turn a list of packages into a bill of materials; called by ``sbom.sh``.

Reads lines of kind (``pypi`` or ``deb``), name, version and licence, tab-separated,
from the standard input and writes CycloneDX 1.5. The image's name and digest are
arguments.
"""

import json
import re
import sys


def component(kind: str, name: str, version: str, licence: str) -> dict[str, object]:
    """Return one package, by the address that scanners look it up by."""
    if kind == "pypi":
        name = re.sub(r"[-_.]+", "-", name).lower()
    path = f"debian/{name}" if kind == "deb" else name
    found: dict[str, object] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}/{path}@{version.replace('+', '%2B').replace(':', '%3A')}",
    }
    if licence:
        found["licenses"] = [{"expression": licence}]
    return found


def bill(image: str, digest: str, lines: list[str]) -> dict[str, object]:
    """Return the bill of materials of an image."""
    rows = sorted(
        {tuple(line.rstrip("\n").split("\t")) for line in lines if line.strip()}
    )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": image,
                "version": digest,
            }
        },
        "components": [component(*row) for row in sorted(rows)],
    }


if __name__ == "__main__":
    json.dump(
        bill(sys.argv[1], sys.argv[2], sys.stdin.readlines()), sys.stdout, indent=1
    )
    print()
