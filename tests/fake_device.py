"""A device that is no processor, as far as torch can tell, on any machine.

Its tensors compute on the processor, and refuse what a GPU's refuse: to be computed
with together with a tensor that is not there, or to become an array. What GPUs allow is
allowed: numbers (tensors without axes) and indices from the processor, and copies.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from common.moe import bases
from common.shape import device_of

DEVICE = torch.device("lazy")
"""A name of torch's that nothing here is built for."""

_aten = torch.ops.aten
_COPIES = {_aten.copy_.default, _aten._to_copy.default}
_INDEXED = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
}


class OnDevice(torch.Tensor):
    """A tensor there; ``inner`` has its numbers."""

    inner: torch.Tensor  # type: ignore[assignment]

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnDevice":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """Return the numbers, as any tensor does; torch leaves it to subclasses."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [
        each
        for each in tree_flatten((args, kwargs))[0]
        if isinstance(each, torch.Tensor)
    ]
    there = [each for each in tensors if isinstance(each, OnDevice)]
    here = [each for each in tensors if not isinstance(each, OnDevice) and each.dim()]
    if there and here and func not in _COPIES:
        indices = func in _INDEXED and isinstance(args[0], OnDevice)
        if not (indices and not any(each is args[-1] for each in here)):
            raise RuntimeError(
                f"expected all tensors to be on the same device: {func} of "
                f"{[(str(each.device), tuple(each.shape)) for each in tensors]}"
            )
    stays = bool(there)
    if kwargs.get("device") is not None:
        stays = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
        if "_to_copy" in str(func):
            kwargs["non_blocking"] = False
    outer = {id(each.inner): each for each in there}

    def inside(value: Any) -> Any:
        return value.inner if isinstance(value, OnDevice) else value

    def outside(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, OnDevice):
            return value
        if id(value) in outer:  # changed in place
            return outer[id(value)]
        written = any(value is each for each in tensors)
        return OnDevice(value) if stays and not written else value

    found = func(*tree_map(inside, args), **tree_map(inside, kwargs))
    return tree_map(outside, found)


class _Device(TorchDispatchMode):
    """Makes the tensors that are asked for there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _enter(self: Any) -> None:
    self.plain = torch.no_grad()
    self.plain.__enter__()


def _exit(self: Any, *error: Any) -> None:
    self.plain.__exit__(*error)


@contextmanager
def fake_device() -> Iterator[None]:
    """Let everybody who asks ``device_of`` compute there."""

    real = device_of  # this module's name is patched with all others

    def answer(_: object) -> torch.device:
        return DEVICE

    with ExitStack() as patches:
        for module in [*sys.modules.values()]:
            if getattr(module, "device_of", None) is real:
                patches.enter_context(mock.patch.object(module, "device_of", answer))
        # Wrapped tensors cannot be inference tensors; without gradients they can be.
        for name, does in {"__enter__": _enter, "__exit__": _exit}.items():
            patch = mock.patch.object(torch.inference_mode, name, does)
            patches.enter_context(patch)
        with _Device():  # type: ignore[no-untyped-call]
            try:
                yield
            finally:  # the bases of this process are everybody's
                for base in bases._installed.values():
                    base.module.cpu()
    for module in [*sys.modules.values()]:
        # Imported meanwhile, it took the answer for the function.
        if getattr(module, "device_of", None) is answer:
            module.device_of = real  # type: ignore[attr-defined]
