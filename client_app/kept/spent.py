"""What a device has spent of its privacy budget (``privacy = "device"``).

One file for all runs, since all of them say something of the same samples::

    <state-dir>/privacy/<client>/spent.json    {"spent": [[z, q, steps], ...], ...}

It is written before the training it is of: a device that loses power in between has
paid for what nobody saw, never the other way round. A file that cannot be read or
written stops the device, and only its owner can go on: else what was spent would be
forgotten.

Epsilon is in the device's log and in that file, for its owner. It is in no message.
"""

import json
import logging
from collections import Counter

from client_app.kept.store import Store
from common.accountant import Release, epsilon_of, quick_bound
from common.errors import SettingsError
from common.settings.privacy_settings import PrivacySettings

logger = logging.getLogger("flwr.expertfleet")

_NAME = "spent.json"
_SPENT = 'the privacy budget of this device is spent ("max-epsilon"): it trains no more'


class Spent:
    """The record of one client.

    Parameters
    ----------
    store : Store
        See :meth:`client_app.kept.home.Home.privacy`.
    rules : PrivacySettings
        With delta and the largest epsilon.

    Raises
    ------
    SettingsError
        If there is a record, and it cannot be read.
    """

    def __init__(self, store: Store, rules: PrivacySettings) -> None:
        self._store, self._rules = store, rules
        self.releases: Counter[Release] = Counter()
        if _NAME not in store.names(""):
            return
        try:
            kept = json.loads(store.read(_NAME) or b"")["spent"]
            for z, q, steps in kept:
                if not (z > 0 and 0 < q <= 1 and steps > 0 and steps == int(steps)):
                    raise ValueError(f"{z}, {q}, {steps}")
                self.releases[Release(float(z), float(q))] += int(steps)
        except (ValueError, TypeError, KeyError):
            raise SettingsError(
                f"the record of what this device has spent of its privacy budget, "
                f"{_NAME}, is damaged: it trains no more until its owner puts a "
                "copy of it there"
            ) from None

    def epsilon(self, release: Release | None = None, steps: int = 0) -> float:
        """Return what was released costs together, with so many steps more.

        At the delta of the run; it may be a bound a fifth above, as long as that is
        not more than may be spent.
        """
        releases = self.releases + Counter({release: steps} if release else {})
        most, delta = self._rules.max_epsilon, self._rules.delta
        bound = quick_bound(releases, delta)
        return epsilon_of(releases, delta) if 0 < most < bound else bound

    def check(self, release: Release, steps: int) -> float:
        """Return epsilon after so many steps more.

        Raises
        ------
        SettingsError
            If that is more than may be spent.
        """
        epsilon = self.epsilon(release, steps)
        if 0 < self._rules.max_epsilon < epsilon:
            logger.error(
                "%s: epsilon is %.4g, and %.4g after another round; at most %g",
                *(_SPENT, self.epsilon(), epsilon, self._rules.max_epsilon),
            )
            raise SettingsError(_SPENT)
        return epsilon

    def charge(self, release: Release, steps: int) -> None:
        """Pay for steps that are to be taken.

        Raises
        ------
        SettingsError
            If that is more than may be spent, or cannot be written down.
        """
        epsilon = self.check(release, steps)
        self.releases[release] += steps
        record = {
            "spent": [[*each, count] for each, count in sorted(self.releases.items())],
            "epsilon": epsilon,
            "delta": self._rules.delta,
        }
        if not self._store.write(_NAME, json.dumps(record).encode()):
            raise SettingsError(
                "what training would spend of this device's privacy budget cannot be "
                f"kept: {self._store.warnings[-1]}"
            )
        logger.info(
            "privacy: epsilon %.4g at delta %g with this round",
            *(epsilon, self._rules.delta),
        )
