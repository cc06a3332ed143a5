"""What stands for a network of images in the registry of backbones.

A user's own is one, too, as ``module:attr``::

    NET = Network(make=lambda size: MyNet(), look=Look(size=(160, 160)))

Built into a model by :mod:`common.moe.image_network`. Not here: libraries of such
networks (``timm_family`` and its neighbours).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from common.networks.look import Look
from common.networks.stages import stages_of
from common.networks.weight_files import look_beside, put_values

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of images.

    Attributes
    ----------
    make : callable
        Given height and width, returns a module that maps images (B, 3, H, W) to
        features (B, D), with values to start from nothing.
    look : Look
        How it sees images, where its weights say nothing else.
    load : callable or None
        Given height and width and the setting ``pretrained``, returns a module with
        those weights; raises SettingsError. None reads a file or directory.
    look_of : callable or None
        Given the setting, returns a look; None for what a directory says (timm's
        ``config.json``), else ``look``.
    stages : callable
        Given a module, returns the paths of the modules of every stage that can be
        frozen, from the input on.
    """

    is_network: ClassVar[bool] = True

    make: Callable[[Size], nn.Module]
    look: Look = field(default_factory=Look)
    load: Callable[[Size, str], nn.Module] | None = None
    look_of: Callable[[str], Look] | None = None
    stages: Callable[[nn.Module], list[list[str]]] = stages_of

    def loaded(self, size: Size, pretrained: str) -> nn.Module:
        """Return a module with weights.

        Raises
        ------
        SettingsError
            If they cannot be read, or are not all of this network's.
        """
        if self.load is not None:
            return self.load(size, pretrained)
        return put_values(self.make(size), pretrained)

    def look_at(self, pretrained: str) -> Look:
        """Return how these weights see images; none are loaded."""
        if self.look_of is not None:
            return self.look_of(pretrained)
        return look_beside(pretrained, self.look)
