"""Sensors of boards: fake device trees, and nothing where there is none."""

import sys
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, ClassVar

import pytest

from client_app.device import sensors


def write(root: Path, name: str, content: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_the_board_of_a_raspberry_pi(tmp_path: Path) -> None:
    model = b"Raspberry Pi 4 Model B Rev 1.4\0"
    write(tmp_path, "proc/device-tree/model", model)
    assert sensors.board(tmp_path) == "Raspberry Pi 4 Model B Rev 1.4"


@pytest.mark.parametrize(("bits", "now"), [(b"50005", True), (b"50000", False)])
def test_throttling_of_a_raspberry_pi_is_now_not_once(
    bits: bytes, now: bool, tmp_path: Path
) -> None:
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    write(tmp_path, path, bits + b"\n")
    assert sensors.throttled(tmp_path) is now


def test_throttling_elsewhere_is_a_cooling_device_of_the_processor(
    tmp_path: Path,
) -> None:
    base = "sys/class/thermal/cooling_device"
    write(tmp_path, f"{base}0/type", b"pwm-fan\n")
    write(tmp_path, f"{base}0/cur_state", b"3\n")
    assert sensors.throttled(tmp_path) is None
    write(tmp_path, f"{base}1/type", b"cpufreq-cpu0\n")
    write(tmp_path, f"{base}1/cur_state", b"0\n")
    assert sensors.throttled(tmp_path) is False
    write(tmp_path, f"{base}1/cur_state", b"2\n")
    assert sensors.throttled(tmp_path) is True


def test_nothing_is_known_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("psutil.sensors_temperatures", raising=False)
    assert sensors.board(tmp_path) == ""
    assert sensors.throttled(tmp_path) is None
    assert sensors.temperature() is None
    assert sensors.jetson() == {}


class Jtop:
    stats: ClassVar[dict[str, Any]] = {"nvp model": "15W", "Temp CPU": 41.0}

    def __enter__(self) -> "Jtop":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def ok(self) -> bool:
        return True


def test_a_jetson_says_its_power_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("jtop")
    module.jtop = Jtop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jtop", module)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert sensors.gpu() == "power mode 15W"


def test_a_broken_driver_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr("torch.cuda.device_count", broken)
    assert sensors.gpu() == ""
