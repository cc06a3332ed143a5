#!/bin/sh
# sbom.sh IMAGE: a software bill of materials of an image (CycloneDX 1.5, JSON) on the
# standard output: its Python packages with versions and licences, its Debian packages,
# and the digest of the image itself. Needs docker on this machine and nothing in it.
set -eu
image=$1
digest=$(docker image inspect --format '{{.Id}}' "$image")
# Whole or not at all: in a pipe a container that failed would pass for an empty image.
packages=$(docker run --rm --network none --entrypoint sh "$image" -c '
  set -e
  dpkg-query --show --showformat "deb\t\${Package}\t\${Version}\t\n"
  if [ -x /opt/venv/bin/python ]; then /opt/venv/bin/python -c "
from importlib.metadata import distributions
for d in distributions():
    license = d.metadata.get(\"License-Expression\") or \"\"
    print(\"pypi\", d.name, d.version, license, sep=\"\t\")
"; fi')
printf '%s\n' "$packages" | python3 "$(dirname "$0")/sbom.py" "$image" "$digest"
