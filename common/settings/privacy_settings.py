"""The settings of differential privacy (docs/privacy.md)."""

from typing import Literal

from pydantic import Field

from common.settings.section import Section


class PrivacySettings(Section):
    """What may be said about any one client, or about any one sample of a device.

    ``clip`` and ``noise`` are bounded so that noise is a whole number of the grid of
    the exact sums in every case (``server_app.merging.noisy_sums``).
    """

    privacy: Literal["none", "central", "device"] = Field(
        "none",
        description="differential privacy: none; central: of a client, the server "
        "clips what clients send and adds noise; device: of a sample, the device does "
        "so in every step of its training",
    )
    privacy_clip: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="C, largest norm of all that a client sends in a round together; "
        "with device, of a sample's gradient; above 0 to 1000",
    )
    noise_multiplier: float = Field(
        5.0,
        ge=0.05,
        le=100,
        description="z, standard deviation of the noise over privacy-clip, 0.05 to 100",
    )
    max_epsilon: float = Field(
        10.0,
        ge=0,
        description="training stops before the round that would exceed it; 0 = never; "
        "with device every device stops by itself",
    )
    delta: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="chance that epsilon does not hold, well below 1 over the clients, "
        "with device over its samples",
    )
    sampling_rate: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="q, chance of every client to be asked in a round, drawn in "
        "secret and for each on its own; 0 = clients-per-round says who",
    )
    private_reports: Literal["leave-out", "open"] = Field(
        "leave-out",
        description="what clients say beside their updates (counts, usage, accuracy, "
        "loss): left out, or open, and then not covered by epsilon",
    )

    @property
    def is_central(self) -> bool:
        """Whether the server adds noise."""
        return self.privacy == "central"

    @property
    def is_device(self) -> bool:
        """Whether devices add noise."""
        return self.privacy == "device"

    @property
    def leaves_out(self) -> bool:
        """Whether clients say nothing of their samples beside their updates."""
        return self.privacy != "none" and self.private_reports == "leave-out"

    @property
    def is_sampled(self) -> bool:
        """Whether who is asked is drawn in secret."""
        return self.is_central and self.sampling_rate > 0
