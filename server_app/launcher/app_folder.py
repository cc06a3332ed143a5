"""The directory that Flower packs an app from: the app, and nothing beside it.

Flower looks at every file below the directory of a ``pyproject.toml`` before it leaves
out most of them: of a checkout with its environment that takes longer than to start the
run. Where this app was installed from a wheel, there is no such directory at all.
"""

import shutil
from importlib import metadata
from pathlib import Path

import tomli_w

from server_app.launcher.config import THIS_APP, app_defaults, is_installed

PACKAGES = ("server_app", "client_app", "common")
PROJECT = "pyproject.toml"


def app_folder(app_dir: Path, room: Path) -> Path:
    """Return the directory that Flower can pack.

    Parameters
    ----------
    app_dir : Path
        What was asked for. Another app than this one is packed where it is.
    room : Path
        Where one may be made; it has to outlive the run.
    """
    if app_dir != THIS_APP:
        return app_dir
    folder = room / "app"
    if folder.exists():
        return folder
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(THIS_APP / package, folder / package, ignore=ignored)
    if is_installed():
        (folder / PROJECT).write_text(_project(), "utf-8")
    else:
        for name in (PROJECT, ".gitignore"):  # the second says what is left out
            if (THIS_APP / name).exists():
                shutil.copyfile(THIS_APP / name, folder / name)
    return folder


def _project() -> str:
    """Return what an app's project file has to say of an installed wheel."""
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
    return tomli_w.dumps(project)
