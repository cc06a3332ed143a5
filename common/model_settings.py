"""The settings of the model: its backbone, its experts and how samples are routed."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from common.sections import Section, SettingsError, nearest

PRETRAINED = "pretrained"


class ModelSettings(Section):
    """The mixture: its backbone, its experts and how samples are routed."""

    backbone: str = Field(
        "mlp",
        description="mlp, cnn, resnet8, resnet18, text-transformer or pretrained",
    )
    pretrained: str = Field(
        "",
        description="directory or hub id of the checkpoint of backbone pretrained",
    )
    num_experts: int = Field(
        8, ge=1, le=4096, description="experts of each layer, 1 to 4096"
    )
    expert_hidden: int = Field(
        32, ge=1, description="hidden units of one expert, at least 1"
    )
    top_k: int = Field(
        1, ge=0, description="held experts a sample is routed to; 0 means all (soft)"
    )
    gate_balance: float = Field(
        0.01, ge=0, description="weight of the local load-balancing loss, at least 0"
    )
    norm: Literal["group", "batch"] = Field(
        "group", description="normalisation of the convolutional backbones"
    )
    encoder_layers: int = Field(
        2, ge=1, le=48, description="blocks of text-transformer, 1 to 48"
    )
    encoder_width: int = Field(
        64, ge=1, description="features of text-transformer, a multiple of its heads"
    )
    encoder_heads: int = Field(
        4, ge=1, description="attention heads of text-transformer, at least 1"
    )
    moe_layers: str = Field(
        "all", description='depths of its mixture layers from 1, as in "1,3", or all'
    )
    routing: Literal["token", "sequence"] = Field(
        "token", description="what an expert of text-transformer is chosen for"
    )

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, value: str) -> str:
        from common.moe.backbones import BACKBONES
        from common.moe.encoder import ENCODERS

        known = sorted([*BACKBONES, *ENCODERS])
        if value not in known:
            raise ValueError(
                f"unknown backbone, choose from {', '.join(known)}"
                + nearest(value, known)
            )
        return value

    @field_validator("moe_layers")
    @classmethod
    def _whole_depths(cls, value: str) -> str:
        if value != "all" and any(not part.isdecimal() for part in value.split(",")):
            raise ValueError('expected "all" or depths from 1 such as "1,3"')
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.pretrained) != (self.backbone == PRETRAINED):
            raise SettingsError(
                f"pretrained = {self.pretrained!r} is not allowed with backbone = "
                f"{self.backbone!r}: a directory or hub id goes with backbone = "
                f"{PRETRAINED!r}, and only with it"
            )
        if self.backbone != PRETRAINED:  # a checkpoint is not read for this
            self.check_depths("encoder-layers")
        if self.encoder_width % self.encoder_heads:
            raise SettingsError(
                f"encoder-width = {self.encoder_width} is not allowed: a multiple of "
                f"encoder-heads = {self.encoder_heads}"
            )
        return self

    def check_depths(self, limit: str) -> None:
        """Raise SettingsError if there is no block at a depth of ``moe-layers``.

        Parameters
        ----------
        limit : str
            What the number of blocks comes from, for the message.
        """
        depths, last = self.moe_depths, self.depth
        if (
            list(depths) != sorted({*depths})
            or not 1 <= depths[0] <= depths[-1] <= last
        ):
            raise SettingsError(
                f"moe-layers = {self.moe_layers!r} is not allowed: ascending depths "
                f"from 1 to {limit} = {last}, or all"
            )

    @property
    def depth(self) -> int:
        """Blocks of an encoder; SettingsError if a checkpoint cannot be read."""
        if self.backbone != PRETRAINED:
            return self.encoder_layers
        from common.checkpoint import read_checkpoint

        return read_checkpoint(self.pretrained).layers

    @property
    def takes_tokens(self) -> bool:
        """Whether the backbone is an encoder of text."""
        from common.moe.encoder import ENCODERS

        return self.backbone in ENCODERS

    @property
    def moe_depths(self) -> tuple[int, ...]:
        """Depths, from 1, at which an encoder has a mixture layer."""
        if self.moe_layers == "all":
            return tuple(range(1, self.depth + 1))
        return tuple(int(depth) for depth in self.moe_layers.split(","))

    @property
    def num_layers(self) -> int:
        """Mixture layers of the model."""
        return len(self.moe_depths) if self.takes_tokens else 1
