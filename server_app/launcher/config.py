"""Run-config of a launched simulation: Flower's syntax, checked before anything starts.

The text is read by Flower's own parser, so ``--run-config`` means here exactly what it
means to ``flwr run``; what that parser skips silently is refused.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from flwr.common.config import flatten_dict, parse_config_args

RunConfig = dict[str, str | int | float | bool]
Validator = Callable[[Mapping[str, Any]], object]

#: Settings that name a place on disk. The run has another working directory than the
#: caller, so a relative one is resolved before it starts.
PATH_KEYS = ("output-dir", "data-dir", "state-dir", "resume-from")

#: What Flower's parser recognises as one pair; anything between two pairs it drops.
_PAIR = re.compile(r"(\S+?)=(\'[^\']*\'|\"[^\"]*\"|\S+)")


class RunConfigError(ValueError):
    """A run-config that cannot be used; the message is one readable line."""


def parse_run_config(texts: Sequence[str]) -> RunConfig:
    """Read ``key=value`` pairs with TOML values, or the path of one TOML file.

    Parameters
    ----------
    texts : Sequence[str]
        What was given to each ``--run-config``; empty texts are ignored.

    Returns
    -------
    RunConfig
        Flat: the keys of nested tables are joined with dots.

    Raises
    ------
    RunConfigError
        If a part of a text is not a pair, a value is not TOML, or a file is missing.
    """
    given = [text.strip() for text in texts if text.strip()]
    is_file = len(given) == 1 and given[0].endswith(".toml")
    for text in [] if is_file else given:
        if rest := _PAIR.sub(" ", text).strip():
            raise RunConfigError(
                f"run-config: cannot read {rest!r}: write key=value pairs separated by "
                "spaces, without spaces around '='"
            )
    try:
        return dict(parse_config_args(given))
    except OSError as error:
        raise RunConfigError(
            f"run-config: cannot read {given[0]!r}: {error.strerror}"
        ) from None
    except (click.ClickException, tomllib.TOMLDecodeError):
        raise RunConfigError(
            f"run-config: {' '.join(given)!r} is not valid: each key once, each value "
            'a number, true, false, or a text in quotes as in strategy="random"'
        ) from None
    except ValueError as error:  # a list or a date; tomli's error where tomli is used
        raise RunConfigError(f"run-config: {one_line(error)}") from None


def app_defaults(app_dir: Path) -> RunConfig:
    """Return ``[tool.flwr.app.config]`` of an app, flat.

    Raises
    ------
    RunConfigError
        If there is no Flower app in `app_dir`.
    """
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
            close = difflib.get_close_matches(key, defaults, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RunConfigError(f"unknown setting {key!r}{hint}")
    overrides = {**_stored(overrides, base), **overrides}
    merged = {**defaults, **overrides}
    if validate is not None:
        try:
            validate(merged)
        except ValueError as error:
            raise RunConfigError(one_line(error)) from None
    resolved = dict(overrides)
    for key in PATH_KEYS:
        value = merged.get(key)
        # "" means "not set" to every one of these settings.
        if isinstance(value, str) and value:
            resolved[key] = str((base / Path(value).expanduser()).resolve())
    checkpoint = merged.get("pretrained")
    if isinstance(checkpoint, str) and checkpoint:
        folder = base / Path(checkpoint).expanduser()
        if folder.is_dir():  # an id of the hub stays what it is
            resolved["pretrained"] = str(folder.resolve())
    return resolved


def _stored(overrides: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the settings of the run that ``resume-from`` continues, if any."""
    folder = overrides.get("resume-from")
    if not isinstance(folder, str) or not folder:
        return {}
    path = base / Path(folder).expanduser() / "run.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_text("utf-8"))["settings"]
    except (OSError, ValueError, KeyError):
        raise RunConfigError(
            f"resume-from = {folder!r} is not the directory of a run: no readable "
            f"{path.resolve()}"
        ) from None
    return stored


def settings_validator(app_dir: Path) -> Validator | None:
    """Return the check of ExpertFleet's own settings, or None for any other app."""
    here = Path(__file__).resolve().parents[2]
    if app_dir.resolve() != here or not (here / "common" / "config.py").is_file():
        return None
    # Late: another app can be launched without torch or pydantic being loaded.
    from server_app.strategies import check_run_config

    return check_run_config


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())
