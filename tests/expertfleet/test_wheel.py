"""What a user gets who installs the wheel: all of it works, in an empty directory.

The build of docs/install.md."""

import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.programs import run_program

ROOT = Path(__file__).resolve().parents[2]
SMALL = "num-rounds=2 num-experts=4 local-epochs=1 train-samples=200 test-samples=50"


def uv() -> str:
    found = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert found, "uv is not installed: run `make install`"
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what is in the wheel, and nothing of the checkout."""
    room = tmp_path_factory.mktemp("wheel")
    build = ["build", "--wheel", "--no-build-isolation", "--quiet", "--out-dir"]
    subprocess.run([uv(), *build, str(room), str(ROOT)], check=True, timeout=600)
    [wheel] = room.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(room / "site")
    return room / "site"


class Shell:
    """Types commands of the installed package in one directory."""

    def __init__(self, site: Path, place: Path) -> None:
        self.place = place
        self._env = {
            "PYTHONPATH": str(site),
            # Jupyter and CI set it for all programs; no terminal reads this.
            "FORCE_COLOR": "1",
        }

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from expertfleet.cli import main; sys.exit(main())"
        command = [sys.executable, "-P", "-c", program, *words]
        return run_program(command, self.place, timeout=600, **self._env)


@pytest.fixture
def shell(site: Path, tmp_path: Path) -> Shell:
    shell = Shell(site, tmp_path)
    code = "import common; print(common.__file__)"
    found = run_program(
        [sys.executable, "-P", "-c", code], tmp_path, PYTHONPATH=str(site)
    )
    assert found.stdout.startswith(str(site))  # and not the checkout
    return shell


def test_it_trains_reports_and_predicts(shell: Shell) -> None:
    done = shell("simulate", "--clients", "3", "--run-config", SMALL)
    assert done.returncode == 0, done.stderr
    [run] = (shell.place / "results").iterdir()
    assert done.stdout.splitlines()[-1] == f"results: {run}"
    # Where it is and how it is gone on with, at the begin and at the end.
    places = [f"run:      {run}", f"report:   {(run / 'report.html').as_uri()}"]
    told = done.stderr.splitlines()
    assert told[:2] == told[-3:-1] == places
    again = shlex.split(told[-1].removeprefix("to go on: "))
    assert again[-3:] == [
        "simulate",
        "--run-config",
        f'resume-from="{run}" num-rounds=4',
    ]
    longer = shell(*again[-3:])
    assert longer.returncode == 0, longer.stderr
    assert longer.stdout.splitlines()[-1] == f"results: {run}"
    assert "fresh" not in longer.stderr  # every gate was there
    report = shell("report", str(run))
    assert (report.returncode, report.stdout) == (0, f"{run / 'report.html'}\n")
    np.savez(shell.place / "x.npz", x=np.zeros((2, 1, 8, 8), np.float32))
    answers = shell("predict", "--run", str(run), "--input", "x.npz")
    assert answers.returncode == 0, answers.stderr
    assert len(answers.stdout.splitlines()) == 3
    assert "\x1b" not in done.stdout + report.stdout + answers.stdout


def test_recipes_are_in_the_wheel(shell: Shell, site: Path) -> None:
    shipped = sorted(path.stem for path in (site / "expertfleet/recipes").iterdir())
    here = ROOT / "expertfleet" / "recipes"
    assert shipped == sorted(path.stem for path in here.glob("*.toml"))
    listed = shell("recipes")
    assert listed.returncode == 0
    lines = listed.stdout.splitlines()[:-2]
    assert [line.split()[0] for line in lines if line[0] != " "] == shipped


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("simulate", "--run-config", "lr=fast"), "error: run-config: 'lr=fast'"),
        (("simulate", "--run-config", "rl=0.1"), "error: unknown setting 'rl'"),
        (("settings", "rl"), "error: unknown setting 'rl'"),
        (("report", "nowhere"), "error: nowhere is not the directory of a run"),
        (("simulat",), "error: No such command 'simulat'"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], said: str, shell: Shell
) -> None:
    done = shell(*words)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(said)


@pytest.mark.simulation
def test_it_trains_with_flower(shell: Shell) -> None:
    done = shell("run", "--clients", "2", "--run-config", SMALL)
    assert done.returncode == 0, done.stderr
    [run] = (shell.place / "results").iterdir()
    assert (run / "model.safetensors").exists()
