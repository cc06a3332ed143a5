"""What changes the fingerprint of the code, and what may differ between two sides."""

from pathlib import Path

import pytest

from common.code_hash import code_hash, outside_sources
from common.errors import SettingsError
from common.settings import Settings

LEARNS = "common/moe/layer.py"
TRAINS = "client_app/training.py"


def tree(root: Path, **changes: str) -> Path:
    for name in (
        LEARNS,
        TRAINS,
        "common/serving/server.py",
        "client_app/commands/x.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")
    for name, text in changes.items():
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("changed", "text", "same"),
    [
        (LEARNS, "x = 2\n", False),
        (TRAINS, "x = 2\n", False),
        ("common/new.py", "", False),
        (TRAINS, "x = 1\r\n", True),
        ("common/test_new.py", "", True),
        ("common/serving/server.py", "x = 2\n", True),
        ("client_app/commands/x.py", "x = 2\n", True),
    ],
)
def test_only_what_a_round_runs_counts(
    changed: str, text: str, same: bool, tmp_path: Path
) -> None:
    before = code_hash(root=tree(tmp_path / "a"))
    assert (code_hash(root=tree(tmp_path / "b", **{changed: text})) == before) == same


NETWORK = "network_of_ours.parts:Network"


def package(root: Path, text: str) -> Path:
    """Write a package, and a module beside it, as one version of somebody's parts."""
    found = root / "network_of_ours"
    found.mkdir(parents=True)
    (found / "__init__.py").write_text("raise AssertionError('imported')\n")
    (found / "parts.py").write_text("from network_of_ours import helpers\n")
    (found / "helpers.py").write_text(text)
    (root / "one_file_of_ours.py").write_text(text)
    return root


def hash_with(root: Path, monkeypatch: pytest.MonkeyPatch, **config: str) -> str:
    with monkeypatch.context() as patch:
        patch.syspath_prepend(root)
        return code_hash(Settings.from_run_config(config))


def test_what_is_ours_adds_nothing() -> None:
    assert len(code_hash()) == 16
    assert code_hash(Settings()) == code_hash()
    config = {"partition": "classes:2", "backbone": "cnn", "reader": "npz"}
    assert code_hash(Settings.from_run_config(config)) == code_hash()


@pytest.mark.parametrize(
    "config",
    [
        {"backbone": NETWORK},
        {"expert": NETWORK},
        {"optimizer": NETWORK},
        {"reader": "one_file_of_ours:read"},
    ],
)
def test_a_part_that_devices_run_counts_with_its_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, str]
) -> None:
    first = hash_with(package(tmp_path / "1", "x = 1\n"), monkeypatch, **config)
    same = hash_with(package(tmp_path / "2", "x = 1\r\n"), monkeypatch, **config)
    other = hash_with(package(tmp_path / "3", "x = 2\n"), monkeypatch, **config)
    assert first[:16] == other[:16] == code_hash()
    assert len(first) == 32
    assert first == same != other


def test_a_partition_counts_whatever_devices_differ_in_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cut_of_ours.py").write_text("def cut(request): ...\n")
    for partition in ("cut_of_ours:cut", "rotation:2+cut_of_ours:cut:3"):
        settings = Settings.from_run_config({"partition": partition})
        assert [*outside_sources(settings)] == ["cut_of_ours"]
    settings = Settings.from_run_config({"partition": "rotation:2+classes:2"})
    assert outside_sources(settings) == {}


def test_what_only_the_server_runs_does_not_count() -> None:
    config = {"strategy": "not_here:S", "fitness": "not_here:f", "merging": "no:m"}
    assert code_hash(Settings.from_run_config(config)) == code_hash()


def test_a_package_counts_once_and_nothing_of_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path, ""))
    config = {"backbone": NETWORK, "optimizer": "network_of_ours.parts:adam"}
    sources = outside_sources(Settings.from_run_config(config))
    assert sources == {"network_of_ours.parts": tmp_path / "network_of_ours"}


def test_a_part_that_is_not_here_is_named() -> None:
    settings = Settings.from_run_config({"expert": "not_here:Expert"})
    with pytest.raises(SettingsError) as error:
        code_hash(settings)
    assert str(error.value) == (
        "expert = 'not_here:Expert' cannot be found: no module 'not_here' here"
    )
