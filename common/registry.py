"""One door for every part a setting names: ours, a package's, or any module's.

A part is named by a built-in name, by an entry point of the group
``expertfleet.<kind>``, or as ``module:attr``. Nothing is imported until it is asked
for, and neither torch nor Flower is needed to check a name. What a part of some kind
has to be is written where that kind is used.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, reduce
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from common.errors import SettingsError, nearest
from common.text import reason

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@cache  # looking through all packages takes 20 ms, and names are asked for often
def installed_parts(kind: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of the group ``expertfleet.<kind>`` by name."""
    return {point.name: point for point in entry_points(group=f"expertfleet.{kind}")}


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The parts of one kind.

    Attributes
    ----------
    kind : str
        Plural; entry points are looked up in the group ``expertfleet.<kind>``.
    setting : str
        Key of the setting that names a part, for messages.
    built_in : mapping of str to str
        Names to ``module:attr``; they win over entry points of the same name.
    expected : str
        What a part is, for messages: "a function of ... that returns ...".
    accepts : Callable[[Any], bool]
        Whether an object can be such a part.
    notation : str
        How else a part may be named, for messages.
    families : mapping of str to str
        What stands before a colon, to the ``module:attr`` of a function that returns
        the part of the name behind it: a library of parts.
    """

    kind: str
    setting: str
    built_in: Mapping[str, str]
    expected: str
    accepts: Callable[[Any], bool] = callable
    notation: str = "module:attr"
    families: Mapping[str, str] = field(default_factory=dict)

    def installed(self) -> Mapping[str, EntryPoint]:
        """Return the parts that installed packages bring, by name."""
        return installed_parts(self.kind)

    def names(self) -> list[str]:
        """Return every name there is, in order."""
        return sorted({*self.built_in, *self.installed()})

    def has(self, name: str) -> bool:
        """Whether a name stands for a part; it may still fail to be imported."""
        return (
            name in self.built_in
            or _TARGET.fullmatch(name) is not None
            or name.partition(":")[0] in self.families
            or name in self.installed()
        )

    def target(self, name: str) -> str:
        """Return the ``module:attr`` a name stands for; nothing is imported.

        Raises
        ------
        SettingsError
            If there is no such name; the message gives the nearest one.
        """
        if name in self.built_in:
            return self.built_in[name]
        if (point := self.installed().get(name)) is not None:
            return f"{point.module}:{point.attr}"
        family, colon, _ = name.partition(":")
        if colon and family in self.families:
            return self.families[family]
        if _TARGET.fullmatch(name):
            return name
        known = self.names()
        choice = " or ".join(filter(None, (", ".join(known), self.notation)))
        hint = nearest(name, known)
        raise self.error(name, f"is not allowed: choose from {choice}{hint}")

    def find(self, name: str) -> Any:
        """Import and return the part with this name.

        Raises
        ------
        SettingsError
            If there is none, its module cannot be imported, or it is something else.
        """
        module, _, attribute = self.target(name).partition(":")
        try:
            found: Any = import_module(module)
            found = reduce(getattr, attribute.split("."), found)
            if self.target(name) in self.families.values():
                found = found(name.partition(":")[2])
        except SettingsError:
            raise
        except Exception as error:  # whatever a module does as it is imported
            raise self.error(name, f"cannot be loaded: {reason(error)}") from error
        if not self.accepts(found):
            raise self.error(name, f"is not {self.expected}")
        return found

    def error(self, name: str, why: str) -> SettingsError:
        """Return the error of a part that cannot be used, as one line."""
        return SettingsError(f"{self.setting} = {name!r} {why}")


# Kinds that server and devices agree on. Those of the server alone are in its rooms.

OPTIMIZERS = Registry(
    kind="optimizers",
    setting="optimizer",
    expected="a function of (parameters, training settings) that returns an optimizer",
    built_in={"sgd": "common.optimizers:sgd", "adamw": "common.optimizers:adamw"},
)
BACKBONES = Registry(
    kind="backbones",
    setting="backbone",
    built_in={
        "mlp": "common.moe.backbones:MLP",
        "cnn": "common.moe.backbones:CNN",
        "cnn1d": "common.moe.backbones:CNN1D",
        "resnet8": "common.moe.backbones:resnet8",
        "resnet18": "common.moe.backbones:resnet18",
        "text-transformer": "common.moe.encoder:TextTransformer",
        "pretrained": "common.moe.pretrained:PretrainedEncoder",
    },
    expected="a class of modules, called with (input_shape, width, norm), where "
    "takes_series = True says that samples are series; with takes_tokens = True, with "
    "(encoder_spec, length, num_classes); or a common.networks.network.Network",
    accepts=lambda found: callable(found) or hasattr(found, "is_network"),
    notation="timm:NAME, torchvision:NAME, module:attr",
    families={
        "timm": "common.networks.timm_family:network",
        "torchvision": "common.networks.torchvision_family:network",
        "efficientnet_lite_pytorch": "common.networks.lite_family:network",
    },
)
EXPERTS = Registry(
    kind="experts",
    setting="expert",
    built_in={
        "mlp": "common.moe.experts:MLPExpert",
        "conv": "common.moe.convolution:ConvExpert",
        "adapter": "common.moe.experts:AdapterExpert",
        "lora": "common.moe.lora:LoRAExpert",
    },
    expected="a class of modules, called with (in_features, hidden, out_features, "
    "scale); what else it may say is in common.moe.experts",
)
CLIENT_METRICS = Registry(
    kind="client_metrics",
    setting="client-metrics",
    built_in={},
    expected="a function of (model, x, y) that returns numbers by name",
)
PARTITIONS = Registry(
    kind="partitions",
    setting="partition",
    expected="a Kind, or a function of a Request that returns index arrays",
    accepts=lambda found: callable(found) or hasattr(found, "tops_up"),
    built_in={
        "iid": "common.data.partition_kinds:IID",
        "dirichlet": "common.data.partition_kinds:DIRICHLET",
        "classes": "common.data.partition_kinds:CLASSES",
        "natural": "common.data.partition_kinds:NATURAL",
    },
)
READERS = Registry(
    kind="readers",
    setting="reader",
    expected="a function of (path, tokeniser) that returns arrays",
    built_in={
        "npz": "common.data.npz:read_arrays",
        "jsonl": "common.data.jsonl:read_jsonl",
        "jsonl.gz": "common.data.jsonl:read_jsonl",
    },
)
