"""Where the experts of a run act: which kinds go with which backbone.

What a kind acts on is said by the kind (:data:`common.moe.experts.ActsOn`).
"""

from common.errors import SettingsError
from common.hub import Checkpoint
from common.linears import Linear, find_linears
from common.moe.experts import ActsOn, acts_on
from common.registry import EXPERTS
from common.settings.model_settings import PRETRAINED, ModelSettings

_PLACES: dict[ActsOn, str] = {
    "features": "features",
    "blocks": 'blocks of a frozen encoder, which only backbone = "pretrained" has',
    "linears": "linear layers of a frozen encoder, which only backbone = "
    '"pretrained" has',
    "maps": "maps of images, which of those that come with it cnn, resnet8 and "
    "resnet18 have",
}


def place_of(model: ModelSettings) -> ActsOn:
    """Return what the experts of a model act on.

    Raises
    ------
    SettingsError
        If its backbone has nothing of that kind, or ``lora-targets`` is set for
        experts that act on something else.
    """
    try:
        place = acts_on(EXPERTS.find(model.expert))
    except ValueError as error:
        raise EXPERTS.error(model.expert, f"cannot be used: {error}") from None
    has: set[ActsOn] = {"features"}
    if not model.takes_tokens and not model.is_network:
        has = {"features", "maps"}  # whether a backbone has maps is tried
    if model.backbone == PRETRAINED:
        has = {"features", "blocks", "linears"}
    if place not in has:
        raise EXPERTS.error(
            model.expert,
            f"is not allowed with backbone = {model.backbone!r}: it acts on "
            f"{_PLACES[place]}",
        )
    if model.lora_targets and place != "linears":
        raise SettingsError(
            f"lora-targets = {model.lora_targets!r} is not allowed with expert = "
            f"{model.expert!r}, which acts on {place}: choose expert = 'lora'"
        )
    return place


def linears_of(model: ModelSettings, checkpoint: Checkpoint) -> tuple[Linear, ...]:
    """Return the linear layers of every block that experts act on, none if on others.

    Raises
    ------
    SettingsError
        If ``lora-targets`` names one that there is not.
    """
    if place_of(model) != "linears":
        return ()
    return find_linears(checkpoint, model.lora_targets)
