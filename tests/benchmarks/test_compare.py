"""Names and options of strategies as ``benchmarks.compare`` takes them."""

import pytest

from benchmarks.compare import strategy_and_options


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("flex-moe", "flex-moe", ""),
        ("fedprox:mu=0.1", "fedprox", "mu=0.1"),
        ("flwr:FedAdam", "flwr:FedAdam", ""),
        ("flwr:FedAdam:eta=0.1, tau=1e-9", "flwr:FedAdam", "eta=0.1, tau=1e-9"),
        ("my.module:Class", "my.module:Class", ""),
        ("my.module:Class:a='x:y=z'", "my.module:Class", "a='x:y=z'"),
        (" random ", "random", ""),
    ],
)
def test_a_colon_of_a_name_is_no_option(text: str, name: str, options: str) -> None:
    assert strategy_and_options(text) == (name, options)


@pytest.mark.parametrize("text", ["", "mu=0.1", "a=b:c"])
def test_options_alone_are_no_strategy(text: str) -> None:
    with pytest.raises(ValueError, match="neither NAME nor NAME:KEY=VALUE"):
        strategy_and_options(text)
