"""The settings of the model: its backbone, its experts and how samples are routed."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from common.errors import SettingsError
from common.registry import BACKBONES, EXPERTS
from common.settings.preprocessing import parse_preprocessing
from common.settings.section import Section, named

PRETRAINED = "pretrained"


class ModelSettings(Section):
    """The mixture: its backbone, its experts and how samples are routed."""

    backbone: Annotated[str, named(BACKBONES)] = Field(
        "mlp",
        description="mlp (anything but text), cnn, resnet8, resnet18 (images), cnn1d "
        "(series), text-transformer, pretrained (texts), timm:NAME or torchvision:NAME "
        "(images) or module:attr",
    )
    pretrained: str = Field(
        "",
        description="weights of backbone pretrained, timm:NAME, torchvision:NAME: a "
        "file, a directory, a hub id, or default for what the library has",
    )
    freeze: str = Field(
        "all",
        description="what pretrained weights are not trained: all, none or the "
        "first N stages of a network of images",
    )
    preprocessing: str = Field(
        "",
        description="how a network of images sees them, where not as its weights say: "
        '"size=128 mean=0.5 std=0.5 interpolation=bicubic channels=rgb"',
    )
    num_experts: int = Field(
        8, ge=1, le=4096, description="experts of each layer, 1 to 4096"
    )
    expert: Annotated[str, named(EXPERTS)] = Field(
        "mlp",
        description="kind of expert: mlp, conv (images), adapter, lora (pretrained) or "
        "module:attr",
    )
    expert_hidden: int = Field(
        32,
        ge=1,
        description="hidden units of one expert, channels of conv, rank of lora; at "
        "least 1",
    )
    lora_targets: str = Field(
        "",
        description="linear layers that lora updates in every block of moe-layers, as "
        'in "query,value", or all; empty: query,value of a BERT, c_attn of a GPT-2',
    )
    lora_alpha: float = Field(
        16.0, gt=0, description="lora updates count lora-alpha / expert-hidden times"
    )
    top_k: int = Field(
        1, ge=0, description="held experts a sample is routed to; 0 means all (soft)"
    )
    gate_balance: float = Field(
        0.01, ge=0, description="weight of the local load-balancing loss, at least 0"
    )
    gate_exploration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of training samples a private gate sends to held experts by "
        "chance, 0 to 1",
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

    @field_validator("moe_layers")
    @classmethod
    def _whole_depths(cls, value: str) -> str:
        if value != "all" and any(not part.isdecimal() for part in value.split(",")):
            raise ValueError('expected "all" or depths from 1 such as "1,3"')
        return value

    @field_validator("lora_targets")
    @classmethod
    def _whole_names(cls, value: str) -> str:
        if value and not all(part.strip() for part in value.split(",")):
            raise ValueError('expected names such as "query,value", all or nothing')
        return value

    @field_validator("freeze")
    @classmethod
    def _some_stages(cls, value: str) -> str:
        if value not in ("all", "none") and not value.isdecimal():
            raise ValueError("expected all, none or a number of stages from 1")
        return "none" if value.isdecimal() and not int(value) else value

    @field_validator("preprocessing")
    @classmethod
    def _readable(cls, value: str) -> str:
        parse_preprocessing(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        ours = self.backbone in BACKBONES.built_in
        if self.backbone == PRETRAINED and not self.pretrained:
            raise SettingsError(
                f"pretrained = '' is not allowed with backbone = {PRETRAINED!r}: a "
                "directory or hub id"
            )
        for key in ("pretrained", "preprocessing"):
            given = getattr(self, key)
            if given and ours and (key, self.backbone) != ("pretrained", PRETRAINED):
                raise SettingsError(
                    f"{key} = {given!r} is not allowed with backbone = "
                    f"{self.backbone!r}: it goes with backbone = {PRETRAINED!r} or a "
                    "network of images such as timm:NAME"
                )
        if self.backbone == PRETRAINED and self.freeze != "all":
            raise SettingsError(
                f"freeze = {self.freeze!r} is not allowed with backbone = "
                f"{PRETRAINED!r}, whose base is always frozen: all"
            )
        if self.freeze.isdecimal() and not self.pretrained:
            raise SettingsError(
                f"freeze = {self.freeze!r} is not allowed without pretrained: weights "
                "that begin at random are trained"
            )
        if self.backbone != PRETRAINED:  # a checkpoint is not read for this
            self.moe_depths(self.encoder_layers, "encoder-layers")
        if self.encoder_width % self.encoder_heads:
            raise SettingsError(
                f"encoder-width = {self.encoder_width} is not allowed: a multiple of "
                f"encoder-heads = {self.encoder_heads}"
            )
        return self

    @property
    def takes_tokens(self) -> bool:
        """Whether the backbone is an encoder of text; SettingsError if it is lost."""
        return getattr(BACKBONES.find(self.backbone), "takes_tokens", False)

    @property
    def is_network(self) -> bool:
        """Whether the backbone is a network of images that others made."""
        if self.backbone in BACKBONES.built_in:  # nothing is imported
            return False
        return hasattr(BACKBONES.find(self.backbone), "is_network")

    @property
    def takes_series(self) -> bool:
        """Whether the backbone is for windows of a series; SettingsError if lost."""
        return getattr(BACKBONES.find(self.backbone), "takes_series", False)

    def moe_depths(self, blocks: int, limit: str) -> tuple[int, ...]:
        """Return the depths, from 1, at which an encoder has a mixture layer.

        Parameters
        ----------
        blocks : int
            That the encoder has.
        limit : str
            What their number comes from, for the message.

        Raises
        ------
        SettingsError
            If there is no block at a depth of ``moe-layers``.
        """
        if self.moe_layers == "all":
            return tuple(range(1, blocks + 1))
        depths = tuple(int(depth) for depth in self.moe_layers.split(","))
        if (
            list(depths) != sorted({*depths})
            or not 1 <= depths[0] <= depths[-1] <= blocks
        ):
            raise SettingsError(
                f"moe-layers = {self.moe_layers!r} is not allowed: ascending depths "
                f"from 1 to {limit} = {blocks}, or all"
            )
        return depths
