"""Freed memory that stays in the process, seen in real ones by their page faults."""

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from client_app.device.allocator import USER_VARIABLES

ROOT = Path(__file__).parents[3]
STEPS, BLOCKS, VALUES = 10, 40, 2**17
PAGES = BLOCKS * VALUES * 4 // resource.getpagesize()

SCRIPT = f"""
import ctypes, resource, sys
import torch
from client_app.device.allocator import keep_freed_memory

# Every page of its own, however much memory the machine has free for large ones.
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
# As eager to give back as it can be by default: a block is new pages every time.
assert all(ctypes.CDLL(None).mallopt(option, 2**17) for option in (-1, -3))
done = keep_freed_memory() if "keep" in sys.argv else False

def step():
    return [torch.ones({VALUES}) for _ in range({BLOCKS})]

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="not the GNU C library"
)


def run(*arguments: str, **environment: str) -> tuple[bool, int]:
    """Return whether memory is kept, and the page faults of all steps."""
    mine = {k: v for k, v in os.environ.items() if k not in USER_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        check=True,
        cwd=ROOT,
        env={**mine, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_a_step_asks_the_system_for_nothing_that_the_one_before_had() -> None:
    by_default, faults = run()
    assert not by_default
    assert faults > STEPS * PAGES / 2
    kept, faults = run("keep")
    assert kept
    assert faults < PAGES / 10


@pytest.mark.parametrize("name", USER_VARIABLES)
def test_what_the_environment_decides_stands(name: str) -> None:
    value = (
        "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    )
    kept, _ = run("keep", **{name: value})
    assert not kept
