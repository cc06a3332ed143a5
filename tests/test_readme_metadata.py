"""The README in the metadata of the package has no link that leads nowhere."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PICTURES = re.compile(r"!\[[^\]]*\]\(([^)]*)\)")
LINKS = re.compile(r"(?<!!)\[[^\]]*\]\(([^)]*)\)")


@pytest.mark.parametrize("repository", ["https://host.example/owner/name", ""])
def test_every_address_is_absolute(repository: str) -> None:
    detached = runpy.run_path(str(ROOT / "hatch_build.py"))["detached"]
    readme = (ROOT / "README.md").read_text()
    text = detached(readme, repository)
    found = PICTURES.findall(text) + LINKS.findall(text)
    assert all(each.startswith("https://") for each in found)
    assert bool(PICTURES.findall(text)) == bool(repository)
    if repository:
        assert f"{repository}/raw/HEAD/docs/round.svg" in text
        assert f"{repository}/blob/HEAD/docs/tutorial.md" in text
        assert len(found) == len(PICTURES.findall(readme) + LINKS.findall(readme))


def test_a_wheel_has_it(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    build = ["build", "--wheel", "--no-build-isolation", "--quiet", "--out-dir"]
    subprocess.run([uv, *build, tmp_path, ROOT], check=True, timeout=600)
    [wheel] = tmp_path.glob("*.whl")
    metadata = subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", wheel, tmp_path], check=True
    )
    assert metadata.returncode == 0
    [file] = tmp_path.glob("*.dist-info/METADATA")
    text = file.read_text()
    assert "# ExpertFleet" in text
    assert "](docs/" not in text
