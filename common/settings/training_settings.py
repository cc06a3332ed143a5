"""The settings of training: what a client does with what it is given."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from common.registry import OPTIMIZERS
from common.settings import lr_schedule
from common.settings.augment_text import parse_augment
from common.settings.lr_schedule import LRSchedule
from common.settings.section import Section, named


class TrainingSettings(Section):
    """What a client does with what it is given.

    Rate and batch size suit the small sets that ship; FLEX-MoE's setting is 0.01 and 64
    (docs/methods.md, 1).
    """

    local_epochs: int = Field(2, ge=1, description="local epochs R a round")
    optimizer: Annotated[str, named(OPTIMIZERS)] = Field(
        "sgd", description="sgd, adamw, or module:attr of a function that makes another"
    )
    lr: float = Field(
        0.05, gt=0, description="learning rate, above 0; of adamw 0.001 to 0.01"
    )
    lr_schedule: str = Field(
        "constant", description=f"the rate over the rounds: {lr_schedule.KINDS}"
    )
    lr_warmup: int = Field(
        0, ge=0, description="first rounds, in which the rate rises to lr; 0 = none"
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum of SGD, or beta1 of AdamW, 0 to <1"
    )
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, at least 0")
    clip_grad: float = Field(
        0.0, ge=0, description="largest norm of the gradient of a step; 0 = any"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a label that all classes get alike in the loss, 0 to <1",
    )
    augment: str = Field(
        "",
        description="names of torchvision.transforms.v2 that training images go "
        'through, "RandomHorizontalFlip,RandomCrop(padding=4)"; empty: none',
    )
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32",
        description="numbers that training computes with; weights and sums stay "
        "float32; auto: half of it where a GPU is",
    )
    batch_size: int = Field(16, ge=1, description="samples in a batch, at least 1")
    threads: int = Field(
        1, ge=1, le=256, description="torch threads of one client, 1 to 256"
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where to compute; auto means a GPU if there is one"
    )

    @field_validator("lr_schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        LRSchedule.parse(value)
        return value

    @field_validator("augment")
    @classmethod
    def _readable_augment(cls, value: str) -> str:
        parse_augment(value)
        return value

    def in_round(self, server_round: int, num_rounds: int) -> "TrainingSettings":
        """Return what holds in one round: the same with the rate of that round."""
        schedule = LRSchedule.parse(self.lr_schedule)
        share = schedule.share(server_round, num_rounds, self.lr_warmup)
        return self if share == 1 else self.model_copy(update={"lr": share * self.lr})
