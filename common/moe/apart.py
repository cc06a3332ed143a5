"""What may be cut out of an extractor as a part of its own: its batch norms, its head.

Some methods leave one of them with the client (FedBN, FedPer); the rest of the
extractor is then what travels under its name.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.parts import HEAD, NORM


def cut_out(extractor: nn.Module, part: str) -> nn.Module:
    """Return what one of these parts is made of; nothing where there is no such.

    Parameters
    ----------
    part : {"norm", "head"}
        All batch norms, by the type of the module; or the linear layer that an encoder
        ends with.
    """
    if part == NORM:
        return nn.ModuleList(
            m for m in extractor.modules() if isinstance(m, _BatchNorm)
        )
    if part == HEAD:
        head = getattr(extractor, "head", None)
        return head if isinstance(head, nn.Module) else nn.ModuleList()
    raise ValueError(f"{part!r} cannot be cut out of an extractor")


class Rest(nn.Module):
    """A module without what was cut out of it.

    Parameters
    ----------
    whole : nn.Module
    without : sequence of nn.Module
        Inside of it.
    """

    def __init__(self, whole: nn.Module, without: Sequence[nn.Module]) -> None:
        super().__init__()
        self.whole = whole
        self._without = {
            id(tensor)
            for module in without
            for tensor in (*module.parameters(), *module.buffers())
        }

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield those that are left, under their names in the whole."""
        for name, value in self.whole.named_parameters(
            prefix, recurse, remove_duplicate
        ):
            if id(value) not in self._without:
                yield name, value

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield those that are left, under their names in the whole."""
        for name, value in self.whole.named_buffers(prefix, recurse, remove_duplicate):
            if id(value) not in self._without:
                yield name, value
