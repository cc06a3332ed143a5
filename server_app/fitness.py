"""The client-expert fitness matrix Q (FLEX-MoE; docs/methods.md, 1).

Pure arrays: rows are clients, columns are experts. What to do with the matrix is the
assignment's business. How well an expert does at a client is said by a scorer, which
the setting ``fitness`` names.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.registry import Registry
from common.seeding import stream
from common.settings.sections import AssignmentSettings

INITIAL = 0.5
TIE_BREAK = 1e-6
LEAST = 1e-6
"""Share of the largest fitness below which pairs are alike to a solver."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a scorer is given: how the k experts that one client held did there.

    Attributes
    ----------
    accuracy, loss : ndarray of float, shape (k,)
        Of the training samples the client's gate sent to each expert, in the last
        epoch; cross-entropy in nats.
    samples : ndarray of int, shape (k,)
        How many these were. Scores of experts with none are not used.
    loss_scale : float
        alpha_L, the setting ``fitness-loss-scale``.
    """

    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    samples: NDArray[np.int64]
    loss_scale: float

    @classmethod
    def of_guessing(cls, num_classes: int, loss_scale: float) -> "Evidence":
        """Return what one expert that guesses would show.

        The paper does not say what an assigned pair scores whose gate sent the expert
        no sample. Left alone, such a pair keeps Q_0 = 0.5 and looks better for ever
        than one that was tried and scored 0.3, so the same idle pairs are chosen again
        in every round. It scores what guessing would [C]: accuracy 1/C, cross-entropy
        ln C.
        """
        return cls(
            accuracy=np.array([1 / num_classes]),
            loss=np.log([num_classes]),
            samples=np.ones(1, dtype=np.int64),
            loss_scale=loss_scale,
        )


Scorer = Callable[[Evidence], NDArray[np.float64]]
"""Returns s(c,e) in [0, 1] for each expert, shape (k,); the more the better."""

SCORERS = Registry(
    kind="scorers",
    setting="fitness",
    expected="a function of Evidence that returns scores",
    built_in={
        "accuracy": "server_app.fitness:accuracy_score",
        "loss": "server_app.fitness:scaled_loss_score",
    },
)


def find_scorer(name: str) -> Scorer:
    """Return the scorer with this name; what it returns is checked at every call.

    Raises
    ------
    SettingsError
        If there is none, and from the scorer if it returns anything but scores.
    """
    scorer = SCORERS.find(name)

    def checked(evidence: Evidence) -> NDArray[np.float64]:
        scores = np.asarray(scorer(evidence), dtype=np.float64)
        if scores.shape != evidence.accuracy.shape:
            wrong = f"shape {scores.shape}, expected {evidence.accuracy.shape}"
        elif not ((scores >= 0) & (scores <= 1)).all():
            wrong = f"{scores}, expected numbers from 0 to 1"
        else:
            return scores
        raise SCORERS.error(name, f"returned scores of {wrong}")

    return checked


class Scoring:
    """How Q learns from a reply: the scorer, its rate and what idle pairs score.

    Parameters
    ----------
    rules : AssignmentSettings
    num_classes : int

    Raises
    ------
    SettingsError
        If there is no such scorer.
    """

    def __init__(self, rules: AssignmentSettings, num_classes: int) -> None:
        self._rules = rules
        self._scorer = find_scorer(rules.fitness)
        guessing = Evidence.of_guessing(num_classes, rules.fitness_loss_scale)
        self._chance = self._scorer(guessing).item()

    def update(
        self,
        fitness: NDArray[np.float64],
        client: int,
        experts: NDArray[np.int64],
        *,
        accuracy: ArrayLike,
        loss: ArrayLike,
        samples: NDArray[np.int64],
    ) -> None:
        """Move the pairs that a client was assigned towards their scores, in place.

        One without a sample has no accuracy and no loss: it scores what guessing would,
        or, with ``idle-fitness = "frozen"``, keeps its Q.

        Parameters
        ----------
        fitness : ndarray, shape (C, E)
        client : int
            Row c.
        experts : ndarray of int, shape (k,)
            Columns that were assigned.
        accuracy, loss : array_like, shape (k,)
        samples : ndarray of int, shape (k,)
            As in :class:`Evidence`.
        """
        evidence = Evidence(
            accuracy=np.asarray(accuracy, dtype=np.float64),
            loss=np.asarray(loss, dtype=np.float64),
            samples=samples,
            loss_scale=self._rules.fitness_loss_scale,
        )
        used = samples > 0
        score = np.where(used, self._scorer(evidence), self._chance)
        moves = used if self._rules.idle_fitness == "frozen" else slice(None)
        rate = self._rules.fitness_rate
        update_fitness(fitness, client, experts[moves], score[moves], rate)


def accuracy_score(evidence: Evidence) -> NDArray[np.float64]:
    """Return s = a, the accuracy-driven score."""
    return evidence.accuracy


def scaled_loss_score(evidence: Evidence) -> NDArray[np.float64]:
    """Return the loss-driven score with the scale of the settings."""
    return loss_score(evidence.loss, evidence.loss_scale)


def loss_score(loss: ArrayLike, scale: float = 1.0) -> NDArray[np.float64]:
    """Return s = exp(-alpha_L l), the loss-driven score, in (0, 1]."""
    return np.exp(-scale * np.asarray(loss, dtype=np.float64))


def initial_fitness(
    num_clients: int, num_experts: int, seed: int, first: int = 0
) -> NDArray[np.float64]:
    """Return Q_0: 0.5 everywhere plus a seeded tie-break of at most 1e-6.

    Each row has a random stream of its own, so a matrix that grows when clients join
    keeps the rows it had.

    Parameters
    ----------
    num_clients, num_experts : int
        C and E.
    seed : int
    first : int
        The first row that is wanted, of C.

    Returns
    -------
    ndarray, shape (C - first, E)
    """
    clients = range(first, num_clients)
    rows = [stream(seed, "fitness", c).random(num_experts) for c in clients]
    noise = np.array(rows).reshape(len(clients), num_experts)
    return INITIAL + TIE_BREAK * noise


def grown(
    fitness: NDArray[np.float64], num_clients: int, seed: int
) -> NDArray[np.float64]:
    """Return the matrix with initial rows added for clients that joined since."""
    known, num_experts = fitness.shape
    if known >= num_clients:
        return fitness
    return np.vstack([fitness, initial_fitness(num_clients, num_experts, seed, known)])


def update_fitness(
    fitness: NDArray[np.float64],
    client: int,
    experts: ArrayLike,
    score: ArrayLike,
    rate: float,
) -> None:
    """Move the assigned pairs towards their score, in place (docs/methods.md, 1).

    ``Q_t(c,e) = (1 - beta) Q_{t-1}(c,e) + beta s`` for the pairs given; all others
    stay as they are.

    Parameters
    ----------
    fitness : ndarray, shape (C, E)
    client : int
        Row c.
    experts, score : array_like, shape (k,)
        Columns that were assigned, and their scores s in [0, 1].
    rate : float
        beta in (0, 1].
    """
    columns = np.asarray(experts, dtype=np.intp)
    fitness[client, columns] += rate * (np.asarray(score) - fitness[client, columns])


def told_apart(fitness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Q with what has all but vanished raised to a millionth of the largest.

    Solvers keep 1e-9 of the largest fitness: less would not be told apart.
    """
    return np.maximum(fitness, LEAST * fitness.max(initial=0.0))
