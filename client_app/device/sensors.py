"""What a board says about itself; None or "" wherever it does not.

Every source here is optional: a laptop has no device tree, a container may hide its
sensors, only a Jetson has ``jetson-stats``. None of them may ever stop a device.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path("/")


def board(root: Path = ROOT) -> str:
    """Return the model from the device tree, such as a Raspberry Pi's."""
    with suppress(OSError):
        text = (root / "proc/device-tree/model").read_bytes()
        return text.rstrip(b"\0").decode("utf-8", "replace").strip()
    return ""


def temperature() -> float | None:
    """Return the hottest sensor in degrees Celsius."""
    with suppress(Exception):  # drivers report nonsense in ways of their own
        readings = psutil.sensors_temperatures().values()
        return max(float(s.current) for sensors in readings for s in sensors)
    return None


def throttled(root: Path = ROOT) -> bool | None:
    """Return whether the processor is being slowed down: heat or a weak supply.

    A Raspberry Pi's firmware says so in the lowest four bits; elsewhere a cooling
    device of the processor at work does.
    """
    with suppress(OSError, ValueError):
        path = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
        return bool(int(path.read_text(), 16) & 0xF)
    states = []
    for folder in root.glob("sys/class/thermal/cooling_device*"):
        with suppress(OSError, ValueError):
            kind = (folder / "type").read_text().lower()
            if "cpu" in kind or "processor" in kind:
                states.append(int((folder / "cur_state").read_text()) > 0)
    return any(states) if states else None


def gpu() -> str:
    """Return the GPUs torch can use and, on a Jetson, its power mode."""
    names: list[str] = []
    with suppress(Exception):  # a driver older than torch's CUDA raises, too
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            names.append(f"{properties.name}, {properties.total_memory >> 20} MiB")
    mode = jetson().get("nvp model")
    return "; ".join(names + ([f"power mode {mode}"] if mode else []))


def jetson() -> dict[str, Any]:
    """Return what jetson-stats knows, nothing where it is not installed or running."""
    try:
        from jtop import jtop  # type: ignore[import-not-found, unused-ignore]

        with jtop() as service:
            return dict(service.stats) if service.ok() else {}
    except Exception:  # not installed, no service, or not this user's to ask
        return {}
