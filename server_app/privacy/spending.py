"""The budget of a run: what has been released, and whether one more round may be.

What is released is charged before its noise is drawn, and the charge is on the disk
first (``server_app.run_folder.charges``): a server that dies between the two has paid
for what nobody saw, never the other way round.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from common.accountant import Release, epsilon_of
from common.errors import SettingsError
from common.settings.privacy_settings import PrivacySettings


class PrivacyBudget:
    """What a run has spent.

    Parameters
    ----------
    rules : PrivacySettings

    Attributes
    ----------
    spent : Counter of Release
        How many releases there were of each kind.

    Raises
    ------
    SettingsError
        If not even one round can be paid for.
    """

    def __init__(self, rules: PrivacySettings) -> None:
        self._rules = rules
        self.spent: Counter[Release] = Counter()
        self.each = Release(rules.noise_multiplier, rules.sampling_rate or 1.0)
        first = epsilon_of({self.each: 1}, rules.delta)
        if 0 < rules.max_epsilon < first:
            raise SettingsError(
                f"max-epsilon = {rules.max_epsilon:g} is not allowed: one round with "
                f"noise-multiplier = {rules.noise_multiplier:g} costs {first:.3g} at "
                f"delta = {rules.delta:g}"
            )

    @property
    def epsilon(self) -> float:
        """What the releases so far cost together."""
        return epsilon_of(self.spent, self._rules.delta)

    def exhausted(self) -> str:
        """Return why no round may follow; "" if one may."""
        most, rules = self._rules.max_epsilon, self._rules
        after = epsilon_of(self.spent + Counter([self.each]), rules.delta)
        if not 0 < most < after:
            return ""
        return (
            f"the privacy budget is spent: epsilon is {self.epsilon:.4g} after "
            f"{self.spent.total()} releases, one more would make it {after:.4g}, and "
            f"max-epsilon is {most:g} (delta {rules.delta:g})"
        )

    def charge(self) -> dict[str, Any]:
        """Pay for one more release; return the line to write down before it happens."""
        self.spent[self.each] += 1
        return {"noise_multiplier": self.each.multiplier, "rate": self.each.rate}

    def restore(
        self, written: Iterable[Mapping[str, Any]], state: Mapping[str, Any]
    ) -> None:
        """Go on with what was spent, by the word of whichever says more.

        Parameters
        ----------
        written : iterable of mapping
            Lines of :meth:`charge`. What is no such line is the rest of one.
        state : mapping
            What :meth:`state` returned, {} for none.
        """
        lines: Counter[Release] = Counter()
        for line in written:
            try:
                found = Release(float(line["noise_multiplier"]), float(line["rate"]))
            except (KeyError, TypeError, ValueError):
                found = self.each
            lines[found] += 1
        kept = {Release(z, q): n for z, q, n in state.get("spent", [])}
        self.spent = lines | Counter(kept)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"spent": [[*each, n] for each, n in sorted(self.spent.items())]}
