"""The app as Flower packs it, where it was installed from a wheel.

Flower builds an app from a directory with a ``pyproject.toml``. A checkout is one; of a
wheel there are packages among others, so a directory is made for the run.
"""

import shutil
from importlib import metadata
from pathlib import Path

import tomli_w

from server_app.launcher.config import THIS_APP, app_defaults, is_installed

PACKAGES = ("server_app", "client_app", "common")


def app_folder(app_dir: Path, room: Path) -> Path:
    """Return the directory that Flower can pack.

    Parameters
    ----------
    app_dir : Path
        What was asked for.
    room : Path
        Where one may be made; it has to outlive the run.
    """
    if app_dir != THIS_APP or not is_installed():
        return app_dir
    folder = room / "app"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(THIS_APP / package, folder / package, ignore=ignored)
    about = metadata.metadata("expertfleet")
    project = {
        "project": {
            "name": about["Name"],
            "version": about["Version"],
            "description": about["Summary"],
            "dependencies": ["flwr"],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "expertfleet",
                    "fab-include": [f"{package}/**" for package in PACKAGES],
                    "components": {
                        "serverapp": "server_app.app:app",
                        "clientapp": "client_app.app:app",
                    },
                    "config": app_defaults(THIS_APP),
                }
            }
        },
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project), "utf-8")
    return folder
