"""Both ways of summing: every sum is taken with numpy and in the compiled loop."""

from collections.abc import Iterator

import pytest

from server_app.merging import exact_sums


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have vectors of any length summed by numpy, or by the compiled loop."""
    with pytest.MonkeyPatch.context() as patch:
        least = 0 if request.param == "compiled" else 10**9
        patch.setattr(exact_sums, "_COMPILED", least)
        yield
