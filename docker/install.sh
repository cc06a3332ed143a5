#!/bin/sh
# Make /opt/venv out of requirements.txt, constraints.txt and uv.txt, with TORCH and
# TORCHVISION from TORCH_INDEX. Every package but these two has to have one of the hashes
# in constraints.txt, which uv compares; /opt/venv/packages.txt says what is there.
set -eu
export VIRTUAL_ENV=/opt/venv UV_NO_CACHE=1
# A certificate authority that the base image trusts is trusted.
export UV_SYSTEM_CERTS=1
python3 -m venv /opt/uv
/opt/uv/bin/pip install --quiet --no-cache-dir --require-hashes --requirement uv.txt
uv=/opt/uv/bin/uv
$uv venv --python python3 /opt/venv

# Alone and first: a torch index carries old copies of other packages as well. What it
# builds of one version has other hashes than PyPI's.
$uv pip install --no-deps ${TORCH_INDEX:+--default-index "$TORCH_INDEX"} \
  "torch==$TORCH" "torchvision==$TORCHVISION"
$uv pip install --constraints constraints.txt --requirements requirements.txt
$uv pip freeze > /opt/venv/packages.txt
# What no constraint names came in without a hash.
sed 's/ .*//' constraints.txt > pinned.txt
if grep --invert-match --extended-regexp '^torch(vision)?==' /opt/venv/packages.txt |
  grep --invert-match --line-regexp --fixed-strings --file=pinned.txt; then
  echo "error: these are not in constraints.txt: run \`make lock\`" >&2
  exit 1
fi

# Headers and tests are a fifth of it all.
cd /opt/venv/lib/python3*/site-packages
rm -rf torch/include torch/test
find . -type d -name tests -prune -exec rm -rf {} +
# The root file system will be read-only, and every round starts a process. Some files
# are in the syntax of a newer Python and never imported by this one.
/opt/venv/bin/python -m compileall -qq -j 0 . || true
