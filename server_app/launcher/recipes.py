"""Recipes: run-configs by name that come with the package, to begin from.

Each is a TOML file in ``expertfleet/recipes``, whose first line says what it is.
"""

from pathlib import Path

RECIPES = Path(__file__).resolve().parents[2] / "expertfleet" / "recipes"


def recipes() -> dict[str, Path]:
    """Return all by name; none where only what devices need is installed."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def what_it_is(path: Path) -> str:
    """Return the line that says it."""
    first = path.read_text("utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()
