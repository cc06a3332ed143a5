"""Write what an image installs: ``requirements.txt`` and ``constraints.txt``.

The first is pyproject.toml's dependencies and those of the extras that are named, the
second the project's own without torch, which images choose themselves. Apart from
pyproject.toml, so that a new setting or version there installs nothing anew.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"]]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
pins = Path("constraints.txt").read_text().splitlines()
kept = [pin for pin in pins if not pin.startswith(("torch==", "torchvision=="))]

Path("out").mkdir()
Path("out/requirements.txt").write_text("\n".join([*wanted, ""]))
Path("out/constraints.txt").write_text("\n".join([*kept, ""]))
