"""Where the experts of a run act: which kinds go with which backbone, at what depths.

What a kind acts on is said by the kind (:data:`common.moe.experts.ActsOn`).
"""

from common.errors import SettingsError
from common.hub import read_checkpoint
from common.linears import Linear, find_linears
from common.moe.encoder import EncoderSpec
from common.moe.experts import ActsOn, acts_on
from common.registry import EXPERTS
from common.settings.model_settings import PRETRAINED, ModelSettings
from common.task import TextTask

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


def encoder_spec(model: ModelSettings, task: TextTask) -> EncoderSpec:
    """Return the shape of an encoder of text, and where in it experts act.

    Raises
    ------
    SettingsError
        If ``moe-layers`` or ``lora-targets`` name what there is not.
    """
    blocks, width, heads = (
        model.encoder_layers,
        model.encoder_width,
        model.encoder_heads,
    )
    limit, config = "encoder-layers", ""
    linears: tuple[Linear, ...] = ()
    if model.backbone == PRETRAINED:
        found = read_checkpoint(model.pretrained)
        blocks, width, heads = found.layers, found.width, found.heads
        limit, config = "the blocks of the checkpoint", found.config
        if place_of(model) == "linears":
            linears = find_linears(found, model.lora_targets)
    return EncoderSpec(
        vocabulary=task.vocabulary_size,
        layers=blocks,
        width=width,
        heads=heads,
        moe_layers=model.moe_depths(blocks, limit),
        routing=model.routing,
        config=config,
        linears=linears,
        alpha=model.lora_alpha if linears else 1.0,
    )
