"""What makes a strategy one of Flower's: our round loop behind Flower's interface.

What its ``start`` runs, and what Flower's own loop gets to see of it. The verbs of an
algorithm are in ``base``; Flower's own strategies, on the dense model, in ``flower``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from server_app.contract import Algorithm
from server_app.rounds.loop import RoundLoop

logger = logging.getLogger("flwr.expertfleet")


class FlowerInterface(Strategy, Algorithm):
    """A true Flower strategy of every algorithm that derives from it."""

    # Of Flower's own loop alone, which knows no state but its strategy's.
    _loop: RoundLoop | None = None

    def arrays(self) -> ArrayRecord:
        """Return the global model as one flat array per part."""
        return ArrayRecord({name: Array(v) for name, v in self.model.items()})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Plan a round and build its messages, one per client, each its own."""
        del config  # orders are typed; a free-form config has nothing to add
        if server_round == 1:
            self.model |= {k: a.numpy() for k, a in arrays.items() if k in self.model}
        if self._loop is None:
            self._loop = RoundLoop(self)
        return self._loop.open(server_round, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check and merge the replies of a round."""
        if self._loop is None:
            raise RuntimeError("no round is open")
        for reply in replies:
            self._loop.accept(reply)
        record = self._loop.close()
        return self.arrays(), record.to_metrics()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return nothing: evaluation rides in the train reply (one exchange)."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return None: client metrics came with the train replies."""
        return None

    def summary(self) -> None:
        """Log what will run."""
        logger.info("Strategy: %s", self.name)
        logger.info(
            "Model: %s, %d experts of %d bytes, extractor of %d bytes",
            self.spec.backbone,
            self.spec.num_units,
            self.spec.nbytes("expert.0"),
            self.spec.nbytes("extractor"),
        )
        logger.info("Private: %s", self.private)
        if self.no_predictor:
            logger.info("%s", self.no_predictor)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run all rounds in our own loop: one exchange a round, merged as it lands.

        Parameters are Flower's; ``initial_arrays`` defaults to the seeded initial
        model, and ``evaluate_fn`` is called with the round and the global arrays.
        """
        if initial_arrays is not None:
            self.model |= {k: initial_arrays[k].numpy() for k in self.model}
        return RoundLoop(self).run(grid, num_rounds, timeout, evaluate_fn)
