"""The registry: what names a part, what is imported, what a wrong name says."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from common.errors import SettingsError
from common.registry import Registry, installed_parts

SHAPES = Registry(
    kind="shapes",
    setting="shape",
    expected="a function of a side that returns an area",
    built_in={"square": "shapes_of_ours:square", "round": "shapes_of_ours:circle"},
)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "shapes_of_ours.py").write_text(
        "def square(a): return a * a\ndef circle(r): return 3 * r * r\n"
    )
    (tmp_path / "shapes_of_others.py").write_text(
        "class Shapes:\n    def triangle(a): return a * a / 2\nnumber = 3\n"
    )
    (tmp_path / "broken_shapes.py").write_text(
        "raise OSError('no\\nshape\\x1b[2J today')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("triangle", "shapes_of_others:Shapes.triangle", SHAPES.kind),
        EntryPoint("square", "shapes_of_others:number", SHAPES.kind),
    ]
    monkeypatch.setattr(
        "common.registry.entry_points",
        lambda group: points if group == "expertfleet.shapes" else [],
    )
    installed_parts.cache_clear()
    yield
    installed_parts.cache_clear()


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "area_of_4"),
    [
        ("square", 16),  # ours, though a package brings one of this name
        ("triangle", 8),
        ("shapes_of_others:Shapes.triangle", 8),
    ],
)
def test_a_part_has_three_kinds_of_name(name: str, area_of_4: int) -> None:
    assert SHAPES.find(name)(4) == area_of_4


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Trianlge",
            "shape = 'Trianlge' is not allowed: choose from round, square, triangle or "
            "module:attr; did you mean 'triangle'?",
        ),
        (
            ":square",
            "shape = ':square' is not allowed: choose from round, square, triangle or "
            "module:attr; did you mean 'square'?",
        ),
        (
            "no_such_module:x",
            "shape = 'no_such_module:x' cannot be loaded: ModuleNotFoundError: No "
            "module named 'no_such_module'",
        ),
        (
            "shapes_of_ours:hexagon",
            "shape = 'shapes_of_ours:hexagon' cannot be loaded: AttributeError: module "
            "'shapes_of_ours' has no attribute 'hexagon'",
        ),
        ("broken_shapes:x", "shape = 'broken_shapes:x' cannot be loaded: OSError: no"),
        (
            "shapes_of_others:number",
            "shape = 'shapes_of_others:number' is not a function of a side that "
            "returns an area",
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        SHAPES.find(name)
    assert str(error.value) == message


@pytest.mark.usefixtures("modules")
def test_a_name_is_checked_without_importing_the_part() -> None:
    sys.modules.pop("broken_shapes", None)
    assert SHAPES.target("round") == "shapes_of_ours:circle"
    assert SHAPES.target("broken_shapes:x") == "broken_shapes:x"


def test_a_kind_that_has_no_part_of_ours() -> None:
    none = Registry(kind="none", setting="none", expected="a part", built_in={})
    with pytest.raises(SettingsError, match=r"'x' .*: choose from module:attr$"):
        none.target("x")


def test_neither_torch_nor_flower_is_imported() -> None:
    code = "import sys, common.registry; print({'torch', 'flwr'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
