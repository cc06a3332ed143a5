"""HeteroFL (Diao et al., ICLR 2021): nested sub-models, one for each capacity.

docs/methods.md, 4; every round, with rate r_c for client c::

    client c trains theta[: ceil(r_c K)], the first channels of every layer, with its
        hidden outputs scaled by 1 / r_c (the scaler), and with cross-entropy whose
        logits are 0 for the classes that it does not have (the masked loss)
    theta_i <- theta_i + mean of delta theta_(c,i) over the c that hold i, by n_c
    coordinates nobody held keep their values

A channel of low number is in everybody's sub-model, one of high number is trained by
the strong clients alone. FedRolex rolls its window instead.

Of what we chose [C]: rates follow the expert budgets as in FedRolex; the paper's are
powers of 1/2. Its static batch norm is a norm without running statistics: the group
norm that backbones have by default is one, and ``norm = "batch"`` is refused. The paper
scales in training only; here a sub-model is the same function when it is measured.
"""

from dataclasses import replace

from pydantic import Field

from common.errors import SettingsError
from common.settings import Settings
from server_app.strategies.base import Plan, StrategyOptions, View
from server_app.strategies.sub_models.fedrolex import FedRolex


class HeteroFL(FedRolex):
    """Nested sub-models, averaged coordinate by coordinate over who holds them."""

    name = "heterofl"
    ships = "the first channels of the dense model"
    source = "HeteroFL, Diao et al., ICLR 2021"
    use_when = (
        "the model is larger than what weak devices hold, and strong ones train all "
        "of it"
    )
    cost = "a device's share of the channels, down and up"

    class Options(FedRolex.Options):
        """HeteroFL's settings: FedRolex's rate, and the masked loss."""

        masked: bool = Field(
            True, description="whether classes a client lacks are out of its loss"
        )

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError, also with running statistics."""
        if settings.model.norm == "batch":
            raise SettingsError(
                "norm = 'batch' is not allowed with strategy 'heterofl': running "
                "statistics of different widths have no mean; choose norm = 'group'"
            )
        return super().parse_options(settings)

    def first_channel(self, server_round: int) -> int:
        """Return 0: every window begins at the first channel."""
        return 0

    def plan(self, view: View) -> Plan:
        """Cut everybody's sub-model out of the model, and ask for masked losses."""
        return replace(super().plan(view), order={"masked_loss": self.options.masked})
