"""Ditto: FedAvg and a model of one's own, pulled to it; docs/methods.md, 4.

Ditto (Li et al., ICML 2021, arXiv 2012.04221, Algorithm 1 and Eq. 2 and 3); every
round, with w the model received::

    w_c <- w trained on the client's own n_c samples, R epochs     (sent)
    w   <- w + sum_c (n_c / n) (w_c - w)
    v_c <- v_c - lr (grad F_c(v_c) + lambda (v_c - w))             (kept), s epochs

The client answers with v_c, the server with w. A large lambda keeps v_c at w, lambda
near 0 is local training: 0 itself is refused, because ``local`` says so at half the
work. The paper tries lambda in {0.1, 1, 2}; 1 is the default [C]. A step with lambda lr
above 1 would overshoot w, and is refused too. v_c starts from the first w received.
"""

from pydantic import Field

from common.errors import SettingsError
from common.local_method import LocalMethod
from common.settings import Settings
from server_app.strategies.base import StrategyOptions
from server_app.strategies.dense import FedAvg


class Ditto(FedAvg):
    """FedAvg; clients use models of their own.

    Raises
    ------
    SettingsError
        If lambda is 0, or lambda times the learning rate is above 1.
    """

    name = "ditto"
    private = "a model of its own"
    source = "Ditto, arXiv 2012.04221"
    use_when = "each device shall have a model of its own beside the shared one"
    cost = "messages of fedavg; twice its memory and training"

    class Options(StrategyOptions):
        """Ditto's own settings."""

        pull: float = Field(
            1.0,
            gt=0,
            description="lambda of lambda/2 |v - w|^2, above 0",
        )
        epochs: int = Field(
            2, ge=1, description="epochs s of the client's own model, at least 1"
        )

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError also for 0 and for an overshoot."""
        if settings.run.parsed_strategy_options().get("pull") == 0:
            raise SettingsError(
                f"strategy-options of {cls.name}: pull = 0 is not allowed: that is "
                'local training at twice the work; choose strategy = "local"'
            )
        options = super().parse_options(settings)
        pull, lr = options.model_dump()["pull"], settings.training.lr
        if pull * lr > 1:
            raise SettingsError(
                f"strategy-options of {cls.name}: pull = {pull:g} is not allowed with "
                f"lr = {lr:g}: a step would overshoot the shared model; at most "
                f"{1 / lr:g}"
            )
        return options

    def local_method(self) -> LocalMethod:
        """Train a second model."""
        return LocalMethod(
            method="ditto",
            personal_epochs=self.options.epochs,
            pull=self.options.pull,
        )
