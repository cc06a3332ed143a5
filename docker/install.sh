#!/bin/sh
# Make /opt/venv out of requirements.txt and constraints.txt, with TORCH and TORCHVISION
# from TORCH_INDEX.
set -eu
export VIRTUAL_ENV=/opt/venv UV_NO_CACHE=1
# A certificate authority that the base image trusts is trusted.
export UV_SYSTEM_CERTS=1
python3 -m venv /opt/uv
/opt/uv/bin/pip install --quiet --no-cache-dir --constraint constraints.txt uv
uv=/opt/uv/bin/uv
$uv venv --python python3 /opt/venv

# Alone and first: a torch index carries old copies of other packages as well.
$uv pip install --no-deps ${TORCH_INDEX:+--default-index "$TORCH_INDEX"} \
  "torch==$TORCH" "torchvision==$TORCHVISION"
$uv pip install --constraints constraints.txt --requirements requirements.txt

# Headers and tests are a fifth of it all.
cd /opt/venv/lib/python3*/site-packages
rm -rf torch/include torch/test
find . -type d -name tests -prune -exec rm -rf {} +
# The root file system will be read-only, and every round starts a process. Some files
# are in the syntax of a newer Python and never imported by this one.
/opt/venv/bin/python -m compileall -qq -j 0 . || true
