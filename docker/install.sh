#!/bin/sh
# `uv pip install ARGUMENT...` into /opt/venv, which is made the first time.
set -eu
export VIRTUAL_ENV=/opt/venv UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
# A certificate authority that the base image trusts is trusted.
export UV_SYSTEM_CERTS=1
if [ ! -d /opt/venv ]; then
  python3 -m venv /opt/uv
  /opt/uv/bin/pip install --quiet --no-cache-dir --constraint constraints.txt uv
  /opt/uv/bin/uv venv --python python3 /opt/venv
fi
/opt/uv/bin/uv pip install "$@"
