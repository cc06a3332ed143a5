"""Which sums a run merges in: of its rule, with noise, or open to late replies."""

from functools import partial

from common.errors import SettingsError
from common.settings import Settings
from server_app.merging.buffers import Buffers
from server_app.merging.means import PartMeans
from server_app.merging.noisy_sums import PrivateSums
from server_app.merging.robust import merging_rule


def new_sums(settings: Settings, strategy: str, *, adds_up: bool) -> PartMeans:
    """Return empty sums of the merging rule the settings ask for.

    Parameters
    ----------
    settings : Settings
    strategy : str
        Its name, for the error.
    adds_up : bool
        Whether it keeps nothing of a reply but what is in the sums.

    Raises
    ------
    SettingsError
        If late replies are to be merged, and it keeps more.
    """
    rules = settings.privacy
    if rules.is_central:
        return PrivateSums(rules.privacy_clip, rules.noise_multiplier)
    rule = partial(merging_rule, settings.merge)
    sums = rule()
    rounds = settings.rounds
    if not rounds.merges_late:
        return sums
    if not adds_up:
        what, usual = "late-replies = 'merge'", "drop"
        if rounds.is_buffered:
            what, usual = "schedule = 'buffered'", "synchronous"
        raise SettingsError(
            f"{what} is not allowed with strategy {strategy!r}, which merges the "
            f"replies of one round together: leave it at {usual!r}"
        )
    return Buffers(rule, rounds.buffer_share if rounds.is_buffered else 0.0)
