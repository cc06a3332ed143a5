"""The stages of a network, from the input on: what ``freeze = N`` counts."""

from torch import nn

OPENED = frozenset({"blocks", "_blocks", "encoder", "features", "layers", "stages"})
"""What authors call a row of blocks: its modules are stages, it is none."""


def stages_of(net: nn.Module, inside: str = "") -> list[list[str]]:
    """Return the paths of the modules of every stage.

    Modules that are no containers of others and follow each other are one stage (a
    convolution and its norm), every container is one. What has nothing to learn is in
    none.
    """
    children = [(n, c) for n, c in net.named_children() if _learns(c)]
    stages: list[list[str]] = []
    single = False
    for name, child in children:
        container = any(map(_learns, child.children()))
        if container and (name in OPENED or len(children) == 1):
            stages += stages_of(child, f"{inside}{name}.")
        elif single and not container:
            stages[-1].append(f"{inside}{name}")
        else:
            stages.append([f"{inside}{name}"])
        single = not container
    return stages


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def without_classifier(net: nn.Module) -> nn.Module:
    """Put nothing in the place of a network's last linear layer; return the network."""
    linear = [name for name, m in net.named_modules() if isinstance(m, nn.Linear)]
    if linear:
        parent, _, name = linear[-1].rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Identity())
    return net
