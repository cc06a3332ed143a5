"""Run-config of a launched simulation: Flower's syntax, checked before anything starts.

The text is read by Flower's own parser, so ``--run-config`` means here exactly what it
means to ``flwr run``; what that parser skips silently is refused.
"""

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from common.errors import nearest
from common.text import message_of
from server_app.launcher.recipes import recipes
from server_app.run_folder.run_files import RunFileError, read_facts

RunConfig = dict[str, str | int | float | bool]
Validator = Callable[[Mapping[str, Any]], object]

#: Settings that name a place on disk. The run has another working directory than the
#: caller, so a relative one is resolved before it starts.
PATH_KEYS = (
    "output-dir",
    "data-dir",
    "state-dir",
    "resume-from",
    "replay-arrivals",
    "fleet-list",
    "task",
    "test-data",
)
WRITTEN_KEYS = ("output-dir", "state-dir", "resume-from")

#: What Flower's parser recognises as one pair; anything between two pairs it drops.
_PAIR = re.compile(r"(\S+?)=(\'[^\']*\'|\"[^\"]*\"|\S+)")


#: The directory of this app: a checkout, or where its packages are installed.
THIS_APP = Path(__file__).resolve().parents[2]


class RunConfigError(ValueError):
    """A run-config that cannot be used; the message is one readable line."""


def parse_run_config(texts: Sequence[str]) -> RunConfig:
    """Read ``key=value`` pairs, TOML files and recipes; what is later wins.

    Parameters
    ----------
    texts : Sequence[str]
        What was given to each ``--run-config``: pairs with TOML values, the path of one
        file, or the name of a recipe; empty texts are ignored.

    Returns
    -------
    RunConfig
        Flat: the keys of nested tables are joined with dots.

    Raises
    ------
    RunConfigError
        If a part of a text is not a pair, a value is not TOML, or a file is missing.
    """
    found: RunConfig = {}
    for text in filter(None, map(str.strip, texts)):
        found |= _parsed(text)
    return found


def _parsed(text: str) -> RunConfig:
    # Late, here and below: help and completion are to be there at once.
    from common.flower_internals import parse_config_args

    if re.fullmatch(r"[a-z-]+", text):
        text = _recipe(text)
    if not text.endswith(".toml") and (rest := _PAIR.sub(" ", text).strip()):
        raise RunConfigError(
            f"run-config: cannot read {rest!r}: write key=value pairs separated by "
            "spaces, without spaces around '='"
        )
    try:
        return dict(parse_config_args([text]))
    except OSError as error:
        raise RunConfigError(
            f"run-config: cannot read {text!r}: {error.strerror}"
        ) from None
    except (click.ClickException, tomllib.TOMLDecodeError):
        raise RunConfigError(
            f"run-config: {text!r} is not valid: each key once, each value "
            'a number, true, false, or a text in quotes as in strategy="random"'
        ) from None
    except ValueError as error:  # a list or a date; tomli's error where tomli is used
        raise RunConfigError(f"run-config: {message_of(error)}") from None


def _recipe(name: str) -> str:
    found = recipes()
    if name not in found:
        raise RunConfigError(
            f"run-config: {name!r} is neither key=value nor a recipe"
            f"{nearest(name, found)} (expertfleet recipes)"
        )
    return str(found[name])


def is_installed() -> bool:
    """Whether this app is that of a wheel: packages without their project's file."""
    return not (THIS_APP / "pyproject.toml").exists()


def app_defaults(app_dir: Path) -> RunConfig:
    """Return ``[tool.flwr.app.config]`` of an app, flat.

    Raises
    ------
    RunConfigError
        If there is no Flower app in `app_dir`.
    """
    if app_dir.resolve() == THIS_APP and is_installed():
        # Late: another app can be launched without pydantic being loaded.
        from common.settings import Settings

        return Settings().to_run_config()
    from common.flower_internals import flatten_dict

    try:
        project = tomllib.loads((app_dir / "pyproject.toml").read_text("utf-8"))
        app = project["tool"]["flwr"]["app"]
    except FileNotFoundError:
        raise RunConfigError(f"no pyproject.toml in {app_dir}") from None
    except KeyError:
        raise RunConfigError(
            f"{app_dir / 'pyproject.toml'} has no [tool.flwr.app] table"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise RunConfigError(f"{app_dir / 'pyproject.toml'}: {error}") from None
    return dict(flatten_dict(app.get("config", {})))


def resolve(
    overrides: Mapping[str, Any],
    defaults: Mapping[str, Any],
    base: Path,
    validate: Validator | None = None,
) -> RunConfig:
    """Check the overrides and return those that the run is started with.

    Parameters
    ----------
    overrides : Mapping[str, Any]
        What the user changed, flat.
    defaults : Mapping[str, Any]
        The app's own configuration, flat: the only keys that Flower accepts.
    base : Path
        The directory that relative paths are meant from.
    validate : Validator, optional
        Called with the merged configuration; its ``ValueError`` is the user's error.

    Returns
    -------
    RunConfig
        The overrides, with every path of ``PATH_KEYS`` absolute (also a default one).

    Raises
    ------
    RunConfigError
        With one line for the first thing that is wrong.
    """
    for key in overrides:
        if key not in defaults:
            raise unknown_setting(key, defaults)
    overrides = {**_stored(overrides, base), **overrides}
    merged = {**defaults, **overrides}
    # "" means "not set" to every one of these settings.
    paths = {
        key: absolute(key, value, base)
        for key in (*PATH_KEYS, "pretrained")
        if isinstance(value := merged.get(key), str) and value
    }
    if validate is not None:
        try:
            validate(merged)
        except ValueError as error:
            raise RunConfigError(message_of(error)) from None
    for key in WRITTEN_KEYS:
        # A run that is continued has its place; it may come from another machine.
        if key in paths and (key != "output-dir" or "resume-from" not in paths):
            _check_writable(key, paths[key])
    if "pretrained" in paths and not Path(paths["pretrained"]).is_dir():
        del paths["pretrained"]  # an id of the hub stays what it is
    return {**overrides, **{key: str(path) for key, path in paths.items()}}


def unknown_setting(key: str, defaults: Mapping[str, Any]) -> RunConfigError:
    """Return the error of a key that an app does not have, with the nearest one."""
    close = difflib.get_close_matches(key, defaults, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return RunConfigError(f"unknown setting {key!r}{hint}")


def absolute(key: str, value: str, base: Path) -> Path:
    """Return the whole path of what a user has written."""
    try:
        path = (base / Path(value).expanduser()).resolve()
        os.fsencode(path)
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a loop of links
        raise RunConfigError(
            f"{key} = {value!r} is not allowed: {message_of(error)}"
        ) from None
    return path


def _check_writable(key: str, path: Path) -> None:
    """Refuse a place that the run could not write to, before it starts."""
    there = path
    try:
        there = next(each for each in (path, *path.parents) if each.exists())
        # Tried, not asked: quotas and file systems have their own say.
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise RunConfigError(
            f"{key} = {str(path)!r} cannot be written to: {there}: {error.strerror}"
        ) from None


def _stored(overrides: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the settings of the run that ``resume-from`` continues, if any."""
    folder = overrides.get("resume-from")
    if not isinstance(folder, str) or not folder:
        return {}
    try:
        facts = read_facts(absolute("resume-from", folder, base))
    except RunFileError as error:
        raise RunConfigError(f"resume-from = {folder!r}: {error}") from None
    return dict(facts["settings"])


def is_ours(app_dir: Path) -> bool:
    """Whether an app is ExpertFleet: its settings are known here."""
    return app_dir.resolve() == THIS_APP


RunConfigTexts = Annotated[
    list[str],
    typer.Option(
        "--run-config",
        "-c",
        metavar="PAIRS",
        help="settings as 'key=value key=\"text\"', a TOML file, or the name of a "
        "recipe; may be repeated, and what is later wins",
    ),
]
