"""Write what an image installs: ``requirements.txt`` and ``constraints.txt``.

The first is pyproject.toml's dependencies and those of the extras that are named, the
second the project's own pins and hashes without torch, which images choose themselves;
``uv.txt`` is the installer's. Apart from pyproject.toml, so that a new setting or
version there installs nothing anew.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"]]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
# A pin is a line that is not indented, and its hashes are the indented ones below.
pins = re.findall(r"^\S.*\n(?:[ \t].*\n)*", Path("constraints.txt").read_text(), re.M)
kept = [pin for pin in pins if not pin.startswith(("torch==", "torchvision=="))]

Path("out").mkdir()
Path("out/requirements.txt").write_text("\n".join([*wanted, ""]))
Path("out/constraints.txt").write_text("".join(kept))
Path("out/uv.txt").write_text("".join(pin for pin in kept if pin.startswith("uv==")))
