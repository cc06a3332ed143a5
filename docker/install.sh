#!/bin/sh
# Make /opt/venv with the pinned dependencies of pyproject.toml.
# Usage: install.sh [--extra NAME]    TORCH, TORCHVISION, TORCH_INDEX: see the Dockerfiles.
set -eu

python3 -m venv /opt/uv
/opt/uv/bin/pip install --quiet --no-cache-dir --constraint constraints.txt uv
export UV_NO_CACHE=1 UV_SYSTEM_CERTS=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/venv
/opt/uv/bin/uv venv --python python3 /opt/venv

# Torch differs from board to board and comes from an index of its own, which carries
# old copies of other packages as well: nothing else may be taken from there.
/opt/uv/bin/uv pip install --no-deps ${TORCH_INDEX:+--default-index "$TORCH_INDEX"} \
  "torch==$TORCH" "torchvision==$TORCHVISION"
grep --invert-match --extended-regexp '^torch(vision)?==' constraints.txt > pins.txt
printf 'torch==%s\ntorchvision==%s\n' "$TORCH" "$TORCHVISION" >> pins.txt
/opt/uv/bin/uv pip install --constraint pins.txt --requirement pyproject.toml "$@"
