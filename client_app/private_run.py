"""What a device does not do with ``privacy = "device"``, whoever asks for it.

It is the device that answers for epsilon: what would say more of its samples than the
changes with noise, or choose by them, it refuses in one line. What of a model or a loss
cannot be split into samples is refused where it is trained (``client_app.dp_sgd``).
"""

from client_app.dp_sgd import release_of
from client_app.session import Session
from common.errors import SettingsError
from common.wire import MeasureOrder, TrainOrder

ALLOWED = ("plain", "alternating")
"""All of whose trainings are for what is shared; others train a model of a device's
own as well, which would be paid for."""


def check_private(
    session: Session, order: TrainOrder | None = None, *, stock: bool = False
) -> None:
    """Check that a message may be answered.

    Parameters
    ----------
    order : TrainOrder, optional
        That is to be carried out; None for a query.
    stock : bool
        Whether it comes from a strategy of Flower's own.

    Raises
    ------
    SettingsError
        If not; or if the budget is spent.
    """
    rules = session.privacy
    if not rules.is_device:
        return
    if session.task.needs_moments:
        raise _refused("a scale worked out of the samples", "give the task a fixed one")
    if stock:
        raise _refused("a strategy of Flower's own", "choose one of ours")
    if order is None:
        training = session.settings.training
        session.spent().check(*release_of(session.num_examples, training, rules))
        return
    if isinstance(order, MeasureOrder) and rules.leaves_out:
        raise _refused("measuring on devices", "give the server test samples")
    if order.candidates > 1:
        raise _refused("a choice by the samples", "choose another strategy")
    if order.train and order.method not in ALLOWED:
        raise _refused(f"the method {order.method!r}", "choose another strategy")


def _refused(what: str, instead: str) -> SettingsError:
    return SettingsError(f'{what} is not allowed with privacy = "device": {instead}')
