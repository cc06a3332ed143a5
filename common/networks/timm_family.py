"""``timm:NAME``: every network of timm, the optional extra ``timm``.

Weights from a file or directory, or with ``pretrained = "default"`` those that timm
downloads for the name.
"""

from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from common.errors import SettingsError, nearest
from common.networks.look import Look, look_from
from common.networks.network import Network, Size
from common.networks.weight_files import file_of, look_beside
from common.registry import BACKBONES
from common.text import first_line

DEFAULT = "default"


def network(name: str) -> Network:
    """Return a network of timm.

    Raises
    ------
    SettingsError
        If the extra is missing, or there is no such network.
    """
    try:
        timm = import_module("timm")
    except ImportError:
        raise BACKBONES.error(
            f"timm:{name}",
            "needs an extra that is not installed: pip install 'expertfleet[timm]'",
        ) from None
    if not timm.is_model(name.partition(".")[0]):
        hint = nearest(name, timm.list_models())
        raise BACKBONES.error(f"timm:{name}", f"is no network of timm{hint}")
    return Network(
        make=partial(_made, timm, name),
        load=partial(_loaded, timm, name),
        look_of=partial(_look, timm, name),
    )


def _made(timm: Any, name: str, size: Size, **more: Any) -> nn.Module:
    config = timm.get_pretrained_cfg(name)
    # Those that are of one size, as transformers are, have to know it.
    if config is not None and config.fixed_input_size:
        more["img_size"] = size
    net: nn.Module = timm.create_model(name, num_classes=0, **more)
    return net


def _loaded(timm: Any, name: str, size: Size, pretrained: str) -> nn.Module:
    more: dict[str, Any] = {"pretrained": True}
    if pretrained != DEFAULT:
        more["pretrained_cfg_overlay"] = {"file": str(file_of(pretrained))}
    try:
        return _made(timm, name, size, **more)
    except Exception as error:  # whatever timm says of such weights
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = first_line(lines[-1] if lines else type(error).__name__)
        raise SettingsError(
            f"pretrained = {pretrained!r} cannot be used with timm:{name}: {why}"
        ) from None


def _look(timm: Any, name: str, pretrained: str) -> Look:
    config = timm.get_pretrained_cfg(name)
    known = look_from(config.to_dict() if config is not None else {}, Look())
    return known if pretrained == DEFAULT else look_beside(pretrained, known)
