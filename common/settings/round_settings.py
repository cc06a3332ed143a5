"""The settings of rounds: how many, who takes part, and how long replies count."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from common.settings.capacity_tiers import CapacityTiers
from common.settings.section import Section

PATIENCE_SECONDS = 3600.0
"""How long who is there is waited for, where links say how long a round may be."""


class RoundSettings(Section):
    """How many rounds there are and who takes part in one."""

    num_rounds: int = Field(30, ge=1, description="rounds of training, an integer >= 1")
    clients_per_round: int = Field(
        0, ge=0, description="clients asked each round; 0 means all"
    )
    expert_capacity: Annotated[CapacityTiers, BeforeValidator(CapacityTiers.parse)] = (
        Field(
            CapacityTiers.parse(2),
            description="experts of each layer per client: an integer or tiers "
            '"1:0.5,2:0.3,4:0.2"',
        )
    )
    eval_every: int = Field(
        1, ge=1, description="evaluate every N rounds (the last one always)"
    )
    round_deadline: float = Field(
        3600.0,
        ge=0,
        description="seconds a round waits for replies; 0 = by its clients' links",
    )
    min_replies: int = Field(
        1, ge=1, description="replies a round needs to be merged, at least 1"
    )
    late_replies: Literal["drop", "merge"] = Field(
        "drop",
        description="what happens to a reply whose round is over: drop, or merge into "
        "the round under way",
    )
    max_staleness: int = Field(
        20,
        ge=1,
        le=1000,
        description="rounds after its own in which a late reply is merged, 1 to 1000",
    )
    over_selection: float = Field(
        0.0, ge=0, le=1, description="share of clients asked beyond clients-per-round"
    )
    short_round: Literal["repeat", "skip"] = Field(
        "repeat", description="what happens to a round with too few replies"
    )
    capacity_margin: float = Field(
        0.1, ge=0, lt=1, description="share of a device's means left unused, 0 to <1"
    )
    train_seconds: float = Field(
        0.0, ge=0, description="seconds a device may train in a round; 0 = no limit"
    )
    upload_seconds: float = Field(
        0.0, ge=0, description="seconds a device may upload in a round; 0 = no limit"
    )
    set_aside_after: int = Field(
        5, ge=2, description="failures in a row after which a client is only probed"
    )

    schedule: Literal["synchronous", "buffered"] = Field(
        "synchronous",
        description="whether all parts move when a round is over, or each when enough "
        "of its holders have replied",
    )
    buffer_share: float = Field(
        0.3,
        gt=0,
        le=1,
        description="with schedule buffered: share of those at work whose replies end "
        "a round, and of its holders whose replies move a part",
    )

    @property
    def is_buffered(self) -> bool:
        """Whether parts move one by one."""
        return self.schedule == "buffered"

    @property
    def merges_late(self) -> bool:
        """Whether a reply whose round is over is merged into the one under way."""
        return self.late_replies == "merge" or self.is_buffered

    @property
    def lifetime(self) -> int:
        """For how many rounds' time an order is worth answering."""
        return 1 + (self.max_staleness if self.merges_late else 0)

    @property
    def patience(self) -> float:
        """Seconds that anything but trained replies is waited for."""
        return self.round_deadline or PATIENCE_SECONDS
