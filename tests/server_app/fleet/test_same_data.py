"""Who may take part with which data, and what a continued run is told."""

from typing import Any

import pytest

from common.data import fingerprint, labels_hash
from common.errors import SettingsError
from common.settings import Settings
from common.shape import dataset_of
from common.wire import QueryReply
from server_app.fleet import same_data
from server_app.fleet.agreement import Agreement

SETTINGS = Settings.from_run_config({"resume-from": "results/r"})
MINE = fingerprint(dataset_of(SETTINGS))
OTHER = "0" * 16


def profile(name: str = "pi0", shares: int = 3, **changes: Any) -> QueryReply:
    fields: dict[str, Any] = {
        "client": name,
        "partition_id": 0,
        "num_partitions": shares,
        "num_examples": 10,
        "code_hash": "",
        "partition_hash": "",
        "data_hash": MINE.train,
        "test_hash": MINE.test,
        "memory_available": 10**9,
    }
    return QueryReply(**{**fields, **changes})


def virtual(shares: int = 3, **changes: Any) -> QueryReply:
    return profile("client-0", shares, memory_available=None, **changes)


def test_the_server_remembers_what_it_began_with() -> None:
    facts = same_data.unchanged(SETTINGS, {})
    assert facts == {"data": {"train": MINE.train, "test": MINE.test}}
    assert same_data.unchanged(SETTINGS, facts) == facts
    for part in ("train", "test"):
        before = {"data": {**facts["data"], part: OTHER}}
        with pytest.raises(SettingsError, match=f"the {part} data of dataset 'digits'"):
            same_data.unchanged(SETTINGS, before)


def test_a_simulation_goes_on_as_the_one_it_was() -> None:
    same_data.check_simulation([virtual(6)], [virtual(6)], SETTINGS)
    same_data.check_simulation([virtual(6)], [], SETTINGS)
    for now in (3, 8):
        with pytest.raises(SettingsError, match=rf"6 clients, now there are {now}: "):
            same_data.check_simulation([virtual(now)], [virtual(6)], SETTINGS)
    with pytest.raises(SettingsError, match="client-0: its dataset 'digits' has other"):
        same_data.check_simulation([virtual(data_hash=OTHER)], [], SETTINGS)


CUT = (3, "")


def test_a_share_of_another_data_set_is_refused() -> None:
    assert same_data.refusal(profile(), CUT, SETTINGS) is None
    for other in (profile(data_hash=OTHER), profile(test_hash=OTHER)):
        reason = same_data.refusal(other, CUT, SETTINGS)
        assert reason is not None and "other samples or labels" in reason


def test_shares_cut_otherwise_are_refused() -> None:
    reason = same_data.refusal(profile("c", 4), CUT, SETTINGS)
    assert reason is not None and reason.startswith("it has one of 4 shares")
    assert "others have one of 3," in reason
    reason = same_data.refusal(profile("c", partition_hash="e"), CUT, SETTINGS)
    assert reason is not None and "at other places than others" in reason


def test_the_usual_cut_is_that_of_most_and_among_equals_the_first() -> None:
    own = profile("d", 1)
    other_data = [profile(name, 4, data_hash=OTHER) for name in "xyz"]
    three, four = [profile("a"), profile("b")], [profile("c", 4), profile("e", 4)]

    def usual(*said: QueryReply) -> same_data.Cut | None:
        return same_data.usual_cut(said, SETTINGS)

    assert usual() is None
    assert usual(own) is None
    assert usual(own, four[0], *three) == (3, "")
    assert usual(*four, *three) == (4, "")
    assert usual(*three, *four) == (3, "")
    assert usual(*other_data, three[0]) == (3, "")


def test_a_device_with_data_of_its_own_may_have_any_and_more() -> None:
    own = profile(shares=1, data_hash=OTHER)
    assert same_data.refusal(own, CUT, SETTINGS) is None
    assert same_data.note(None, own, SETTINGS) is None
    assert same_data.note(own, own, SETTINGS) is None
    grown = profile(shares=1, data_hash="1" * 16, num_examples=25)
    assert same_data.note(own, grown, SETTINGS) == (
        "pi0: its data have changed, 25 samples to train on instead of 10"
    )
    apart = profile(shares=1, test_hash=OTHER)
    note = same_data.note(None, apart, SETTINGS)
    assert note is not None and "its test set is not the server's" in note


def test_a_device_without_a_test_set_is_told_of_where_the_server_has_one() -> None:
    note = same_data.note(None, profile(shares=1, test_hash=""), SETTINGS)
    assert note is not None and "client_global is not reported" in note


def test_a_mean_over_several_test_sets_is_none() -> None:
    agreement = Agreement(SETTINGS)
    same, apart, none = profile(), profile(test_hash=OTHER), profile(test_hash="")
    assert agreement.one_test_set([same, same])
    for other in (apart, none):
        assert not agreement.one_test_set([same, other])
        assert not agreement.one_test_set([other, other])


def test_test_labels_that_are_not_the_servers_are_told_of_data_of_its_own() -> None:
    labels = dataset_of(SETTINGS).y_test

    def of_its_own(test_labels: Any) -> QueryReply:
        fields = {"partition_id": -1, "data_hash": OTHER}
        return profile("cam", 0, test_hash=labels_hash(test_labels), **fields)

    same = same_data.note(None, of_its_own(labels), SETTINGS)
    assert same is not None and "test labels" not in same
    for other in ((labels + 1) % 10, labels[:1]):
        note = same_data.note(None, of_its_own(other), SETTINGS)
        assert note is not None
        assert note.startswith("cam: the test labels in its file are not the server's")
    # Once: it is no news when it is asked again.
    before = of_its_own((labels + 1) % 10)
    assert same_data.note(before, before, SETTINGS) is None


def test_a_simulation_of_devices_with_data_of_their_own_needs_no_set() -> None:
    own = virtual(0, partition_id=-1, data_hash=OTHER)
    same_data.check_simulation([own], [own], SETTINGS)
