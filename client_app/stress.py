"""What a client can hold and what it says of it, and how it fails on purpose.

Simulated clients drop out and misreport as the stress settings say; both is drawn from
the seed, so that a run can be repeated. Drifting data is in ``client_app.session``.
"""

from client_app.session import Session
from common.seeding import stream
from common.wire import TrainOrder


def true_capacity(session: Session) -> int:
    """Return the experts of each layer it can hold: its owner's word, else its tier."""
    if session.node.expert_cap is not None:
        return session.node.expert_cap
    tiers = session.settings.rounds.expert_capacity
    if not session.num_partitions:
        return tiers.largest
    rng = stream(session.settings.run.seed, "capacity")
    return int(tiers.budgets(session.num_partitions, rng)[session.partition_id])


def reported_capacity(session: Session) -> int:
    """Return what this device declares; wrong on purpose under ``capacity-error``.

    0 means not declared: the server goes by the tier it knows.
    """
    error = session.settings.stress.capacity_error
    if not error:
        return session.node.expert_cap or 0
    rng = stream(session.settings.run.seed, "capacity-error", session.client)
    return max(1, round(true_capacity(session) * (1 + rng.uniform(-error, error))))


def apply_stress(session: Session, order: TrainOrder) -> None:
    """Fail as the stress settings say.

    Raises
    ------
    ConnectionError
        This client drops out of this round.
    MemoryError
        It was sent more experts than it can hold, because it reported too much.
    """
    stress, seed = session.settings.stress, session.settings.run.seed
    path = ("drop-out", order.server_round, order.attempt, session.client)
    if stream(seed, *path).random() < stress.drop_out:
        raise ConnectionError(f"simulated drop-out of {session.client}")
    ordered = len(order.experts)
    can_hold = true_capacity(session) * session.spec.num_layers
    if stress.capacity_error and ordered > can_hold:
        raise MemoryError(
            f"simulated: {session.client} can hold {can_hold} experts, not {ordered}"
        )
