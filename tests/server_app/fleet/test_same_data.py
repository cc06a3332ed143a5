"""Who may take part with which data, and what a continued run is told."""

from typing import Any

import pytest

from common.data import fingerprint
from common.errors import SettingsError
from common.own.marks import marks_of_set
from common.settings import Settings
from common.shape import dataset_of, server_task
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


MARKS = marks_of_set(dataset_of(SETTINGS), server_task(SETTINGS))


def of_its_own(samples: str = MARKS.samples, whole: str = MARKS.whole) -> QueryReply:
    return profile(
        "cam",
        0,
        partition_id=-1,
        data_hash=OTHER,
        test_hash=whole,
        test_samples_hash=samples,
    )


def test_data_of_its_own_may_have_the_servers_test_set_beside_them() -> None:
    same, shared = of_its_own(), profile()
    assert same_data.refusal(same, CUT, SETTINGS) is None
    assert same_data.note(None, same, SETTINGS) is None
    agreement = Agreement(SETTINGS)
    assert agreement.one_test_set([same, shared])
    # The hash of a whole set and that of samples beside others are of two kinds.
    assert not agreement.one_test_set([of_its_own(whole=MINE.test)])


def test_the_servers_test_samples_with_other_labels_are_refused() -> None:
    reason = same_data.refusal(of_its_own(whole=OTHER), CUT, SETTINGS)
    assert reason is not None and reason.startswith(
        "its test samples are the server's and their labels are not: it numbers the "
        "classes in another way"
    )


def test_another_test_set_beside_data_of_its_own_is_told_of_once() -> None:
    other = of_its_own("1" * 16, OTHER)
    assert same_data.refusal(other, CUT, SETTINGS) is None
    assert same_data.note(None, other, SETTINGS) == (
        "cam: its test set is not the server's: make sure that both number the classes "
        "alike; client_global is not reported in a round with it"
    )
    assert same_data.note(other, other, SETTINGS) is None


def test_a_simulation_of_devices_with_data_of_their_own_needs_no_set() -> None:
    own = virtual(0, partition_id=-1, data_hash=OTHER)
    same_data.check_simulation([own], [own], SETTINGS)
