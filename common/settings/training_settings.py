"""The settings of training: what a client does with what it is given."""

from typing import Annotated, Literal

from pydantic import Field

from common.registry import OPTIMIZERS
from common.settings.section import Section, named


class TrainingSettings(Section):
    """What a client does with what it is given.

    Rate and batch size suit the small sets that ship; FLEX-MoE's setting is 0.01 and 64
    (docs/methods.md, 1).
    """

    local_epochs: int = Field(2, ge=1, description="local epochs R a round")
    optimizer: Annotated[str, named(OPTIMIZERS)] = Field(
        "sgd", description="sgd, or module:attr of a function that makes another"
    )
    lr: float = Field(0.05, gt=0, description="learning rate, above 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD, 0 to <1")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, at least 0")
    batch_size: int = Field(16, ge=1, description="samples in a batch, at least 1")
    threads: int = Field(
        1, ge=1, le=256, description="torch threads of one client, 1 to 256"
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where to compute; auto means a GPU if there is one"
    )
