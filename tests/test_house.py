"""Nothing in the three packages has the name of something else."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def sources() -> Iterator[Path]:
    for package in ("server_app", "client_app", "common"):
        for path in (ROOT / package).rglob("*.py"):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                yield path


def places(names: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Return where the names are that are there more than once."""
    found = defaultdict(list)
    for name, path in names:
        found[name].append(path.relative_to(ROOT).as_posix())
    return {name: sorted(paths) for name, paths in found.items() if len(paths) > 1}


def test_no_two_modules_of_one_name() -> None:
    # Flower's entry points are `app` on both sides; a command's module is called as
    # the command, which both sides have.
    modules = (
        (path.stem, path)
        for path in sources()
        if path.stem not in {"__init__", "__main__", "app"}
        and path.parent.name != "commands"
    )
    assert places(modules) == {}


def test_no_two_public_classes_of_one_name() -> None:
    classes = (
        (node.name, path)
        for path in sources()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert places(classes) == {}
