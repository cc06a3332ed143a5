"""What is remembered of one client in one round; of the round itself in ``record``."""

from dataclasses import dataclass, field

from common.wire import TrainReport

SAMPLES = "samples"
"""What was cut down, beside parts: the weight of a client."""


@dataclass(kw_only=True)
class ClientRound:
    """One participant in one round; accuracies are None where not evaluated.

    ``order_round`` is the round of its order, an earlier one if the reply came late.
    ``held_out`` is how many samples ``client_local`` is the accuracy on. ``domain`` is
    in what the device differs, None where the partition says it of none. ``cut`` has
    what each part of its reply was multiplied with, and its ``samples``, where they
    were too far above the others' (``server_app.merging.bounds``).
    """

    client: str
    experts: list[int]
    budget: int
    order_round: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    replied: bool = False
    num_examples: int = 0
    expert_samples: list[int] = field(default_factory=list)
    train_loss: float | None = None
    client_global: float | None = None
    client_local: float | None = None
    held_out: int = 0
    seconds: float = 0.0
    seconds_until_reply: float = 0.0
    memory_peak: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    domain: str | None = None
    cut: dict[str, float] = field(default_factory=dict)

    def cut_note(self) -> str:
        """Return who was cut down and how far, in a line that is alike round by round.

        Factors are in ``cut``.
        """
        parts = [name for name in self.cut if name != SAMPLES]
        what = ["its samples"] if SAMPLES in self.cut else []
        what += ["its change"] if parts else []
        return f"{self.client}: cut down {' and '.join(what)}"

    def line(self) -> str:
        """Return what this device held and did, in a line of the log."""
        held = f"{len(self.experts)} of {self.budget}"
        if not self.replied:
            return f"{self.client:<12} {held:>9}  no reply"
        peak = "" if self.memory_peak is None else f"{self.memory_peak >> 20:6d} MiB"
        return (
            f"{self.client:<12} {held:>9} {self.bytes_down / 1e6:8.2f} MB down "
            f"{self.bytes_up / 1e6:8.2f} MB up {self.seconds_until_reply:7.1f} s {peak}"
        )

    def note_reply(self, report: TrainReport, bytes_up: int, elapsed: float) -> None:
        """Note that an accepted reply came, and how long after its order."""
        self.replied = True
        self.bytes_up += bytes_up
        self.seconds = report.seconds_total
        self.seconds_until_reply = elapsed

    def add_reply(
        self, report: TrainReport, bytes_up: int, elapsed: float, held_out: int = 0
    ) -> None:
        """Note what an accepted reply said, and how long after its order it came."""
        self.note_reply(report, bytes_up, elapsed)
        self.num_examples = report.num_examples
        self.expert_samples = report.expert_samples
        self.train_loss = report.train_loss
        self.client_global = report.client_global
        self.client_local = report.client_local
        self.held_out = held_out
        self.memory_peak = report.memory_peak
        self.metrics = report.metrics
