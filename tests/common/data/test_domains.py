"""Devices that differ: who is in which group, and what becomes of samples and labels.

How images are turned and developed is in ``test_appearance``.
"""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import (
    PLAIN,
    Dataset,
    Domain,
    Normaliser,
    client_partition,
    domains_of,
    load_client_data,
    load_dataset,
    parse_partition,
    seen_in,
)
from common.data.domains import client_domains
from common.errors import SettingsError


def images(rows: int = 120, classes: int = 3, **fields: Any) -> Dataset:
    """Return images of 2x2 pixels in bytes: sample i is i, i + 1, i + 2, i + 3."""
    x = (np.arange(rows)[:, np.newaxis] + np.arange(4)).reshape(-1, 2, 2)
    y = np.arange(rows) % classes
    given: dict[str, Any] = {
        "x_train": x.astype(np.uint8),
        "x_test": x[:6].astype(np.uint8),
        "input_shape": (1, 2, 2),
        "normaliser": Normaliser(scale=255.0),
        **fields,
    }
    return Dataset(name="images", y_train=y, y_test=y[:6], num_classes=classes, **given)


def domains(text: str, clients: int, classes: int = 5, seed: int = 0) -> list[Domain]:
    factors = parse_partition(text).factors
    return list(client_domains(factors, classes, clients, seed))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("rotation:4+dirichlet:0.3", "rotation:4+dirichlet:0.3"),
        ("concept:4+classes:2", "concept:4+classes:2"),
        ("rotation:11/6/2/1", "rotation:11/6/2/1+iid"),
        ("concept:18/2+natural", "concept:18/2+natural"),
        ("rotation:3/3", "rotation:2+iid"),
        ("classes:2+concept:3", "concept:3+classes:2"),
        (
            "concept:2+photometric:2 + rotation:2+dirichlet:1.0",
            "rotation:2+photometric:2+concept:2+dirichlet:1.0",
        ),
        ("rotation:2+dirichlet:1e+3", "rotation:2+dirichlet:1000.0"),
        ("rotation:4+os.path:join:3", "rotation:4+os.path:join:3.0"),
    ],
)
def test_parse(text: str, means: str) -> None:
    spec = parse_partition(text)
    assert str(spec) == means
    assert parse_partition(means) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rotation", "'rotation': expected rotation:G with 2 to 360 groups"),
        ("rotation:1", "'rotation:1': expected rotation:G"),
        ("rotation:361", "expected rotation:G with 2 to 360 groups"),
        ("rotation:2.5", "expected rotation:G"),
        ("rotation:3/0", "'rotation:3/0': expected"),
        ("rotation:3/", "'rotation:3/': expected"),
        ("photometric:5", "expected photometric:G with 2 to 4 groups"),
        ("concept:-2", "expected concept:G"),
        ("concept:²", "expected concept:G"),
        ("concept:1000001/1", "expected concept:G"),
        ("concept:4+", "'concept:4+': expected concept:G"),
        ("rotation:2+rotation:3", "rotation is there twice"),
        ("iid+classes:2", "expected one label partition, not 2"),
        ("rotation:2+dirichlet", "ALPHA a number above 0"),
        ("rotation:2+dirchlet:1", "did you mean 'dirichlet:1'?"),
        ("rotatoin:4+iid", "did you mean 'rotation:4'?"),
        ("concepts", "did you mean 'concept:2'?"),
        ("rotation:4+folders", "expected 'folders' alone"),
    ],
)
def test_parse_refuses(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        parse_partition(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("rotation:4", {0.0: 5, 90.0: 5, 180.0: 5, 270.0: 5}),
        ("rotation:11/6/2/1", {0.0: 11, 90.0: 6, 180.0: 2, 270.0: 1}),
        ("rotation:18/2", {0.0: 18, 180.0: 2}),
        ("rotation:3", {0.0: 7, 120.0: 7, 240.0: 6}),
    ],
)
def test_sizes_of_groups(text: str, sizes: dict[float, int]) -> None:
    assert Counter(d.degrees for d in domains(text, 20)) == sizes


def test_what_the_groups_of_light_are() -> None:
    looks = ["as it is", "inverted", "blurred", "low contrast"]
    assert Counter(d.look for d in domains("photometric:4", 8)) == dict.fromkeys(
        looks, 2
    )
    assert {d.look for d in domains("photometric:2", 8)} == {*looks[:2]}


def test_groups_follow_the_seed_and_not_the_row() -> None:
    drawn = {
        tuple(d.degrees for d in domains("rotation:2", 8, seed=s)) for s in (*range(4),)
    }
    assert len(drawn) > 1
    assert not any(list(each) == sorted(each) for each in drawn)


@given(
    shares=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    others=st.integers(2, 4),
    times=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_two_factors_are_crossed_evenly(
    shares: list[int], others: int, times: int, seed: int
) -> None:
    # As many clients as give every pair of groups its exact share.
    clients = sum(shares) * others * times
    text = f"rotation:{'/'.join(map(str, shares))}+photometric:{others}"
    found = Counter((d.degrees, d.look) for d in domains(text, clients, seed=seed))
    assert len(found) == len(shares) * others
    for place, share in enumerate(shares):
        degrees = place * 360 / len(shares)
        sizes = [n for (angle, _), n in found.items() if angle == degrees]
        assert sizes == [share * times] * others


@pytest.mark.parametrize(("text", "clients"), [("rotation:4", 3), ("concept:18/2", 4)])
def test_a_group_without_clients_is_refused(text: str, clients: int) -> None:
    with pytest.raises(ValueError, match=f"'{text}': {clients} clients leave a group"):
        domains(text, clients)


@given(groups=st.integers(2, 6), classes=st.integers(3, 8), seed=st.integers(0, 99))
def test_concepts_are_different_permutations_and_the_first_is_none(
    groups: int, classes: int, seed: int
) -> None:
    found = {
        d.concept: d.labels for d in domains(f"concept:{groups}", groups, classes, seed)
    }
    identity = tuple(range(classes))
    assert found.pop(0) == ()
    assert sorted(found) == list(range(1, groups))
    assert len({*found.values(), identity}) == groups
    for labels in found.values():
        inverse = np.argsort(labels)
        there = Domain(labels=labels).relabelled(np.arange(classes))
        assert there.tolist() == [*labels]
        assert inverse[there].tolist() == [*identity]


def test_two_classes_have_one_other_concept() -> None:
    assert {d.labels for d in domains("concept:2", 6, classes=2)} == {(), (1, 0)}
    with pytest.raises(SettingsError, match="2 classes have 2 permutations"):
        domains_of(images(classes=2), parse_partition("concept:3"), 6, 0)


@pytest.mark.parametrize("kind", ["rotation:2", "photometric:2"])
def test_only_images_have_an_appearance(kind: str) -> None:
    tokens = np.zeros((120, 7), np.uint16)
    texts = images(x_train=tokens, input_shape=(7,), vocabulary=9)
    with pytest.raises(SettingsError, match=rf"'{kind}' is not allowed.*\(7,\)"):
        load_client_data(texts, parse_partition(f"{kind}+iid"), 0, 4, 0)
    data = load_client_data(texts, parse_partition("concept:2"), 0, 4, 0)
    assert data.normalise(data.x_train).dtype == np.int64


def test_brightness_has_to_be_known() -> None:
    raw = images(x_train=np.full((120, 2, 2), 300.0), normaliser=Normaliser())
    with pytest.raises(
        SettingsError, match="brightness from 0 to 1, and it has 0 to 3"
    ):
        domains_of(raw, parse_partition("photometric:2"), 4, 0)
    domains_of(raw, parse_partition("rotation:2"), 4, 0)


@settings(max_examples=30)
@given(
    label=st.sampled_from(["iid", "dirichlet:0.3", "classes:2"]),
    factor=st.sampled_from(["rotation:2", "concept:2", "concept:3/1+photometric:2"]),
    clients=st.integers(4, 8),
    seed=st.integers(0, 99),
)
def test_every_sample_once_and_the_labels_of_the_label_partition(
    label: str, factor: str, clients: int, seed: int
) -> None:
    dataset = images()
    spec, plain = parse_partition(f"{factor}+{label}"), parse_partition(label)
    parts = client_partition(dataset, spec, clients, seed)
    alone = client_partition(dataset, plain, clients, seed)
    assert [part.tolist() for part in parts] == [part.tolist() for part in alone]
    rows = np.concatenate(parts)
    assert len(np.unique(rows)) == len(rows)
    for c in range(clients):
        mine = load_client_data(dataset, spec, c, clients, seed)
        theirs = load_client_data(dataset, plain, c, clients, seed)
        assert mine.train.tolist() == theirs.train.tolist()
        counts = np.bincount(theirs.y_train, minlength=3)
        called = np.bincount(mine.y_train, minlength=3)
        # Where class k went, and back.
        names = [*mine.domain.labels] or [0, 1, 2]
        assert called[names].tolist() == counts.tolist()


def test_a_client_sees_all_its_samples_in_its_domain() -> None:
    dataset = images()
    spec = parse_partition("rotation:2+concept:2")
    of = domains_of(dataset, spec, 4, 0)
    assert len(set(of)) == 4
    for c, domain in enumerate(of):
        data = load_client_data(dataset, spec, c, 4, 0)
        assert data.domain == domain
        tested = seen_in(domain, dataset, dataset.x_test, dataset.y_test)
        first = tested.normalise(tested.x_held_out)[0, 0] * 255
        expected = [[3, 2], [1, 0]] if domain.degrees else [[0, 1], [2, 3]]
        assert first.round().tolist() == expected
        names = domain.labels or (0, 1, 2)
        assert tested.y_held_out.tolist() == [names[k] for k in dataset.y_test]
        # What it trains on goes the same way.
        whole = domain.model_input(
            dataset.x_train, dataset.input_shape, dataset.normaliser, dataset.kind
        )
        assert np.array_equal(data.normalise(data.x_train), whole[data.train])


def test_without_differences_nothing_is_done() -> None:
    dataset = load_dataset("digits", "")
    data = load_client_data(dataset, parse_partition("iid"), 1, 4, 0)
    assert data.domain == PLAIN
    assert data.y is dataset.y_train or np.shares_memory(data.y, dataset.y_train)
    assert np.array_equal(data.normalise(data.x_train), dataset.normalise(data.x_train))
