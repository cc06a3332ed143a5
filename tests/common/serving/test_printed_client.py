"""The client of docs/after-training.md, run as it stands against a server."""

import asyncio
import re
from contextlib import redirect_stdout
from io import StringIO

import pytest

from tests.common.serving.support import Shelf, make_servable, run, serving
from tests.conftest import REPOSITORY


def test_the_printed_client_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # where nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    page = (REPOSITORY / "docs/after-training.md").read_text()
    [code] = re.findall(r"```python\n(import grpc.*?)```", page, re.DOTALL)
    assert "127.0.0.1:50051" in code
    printed = StringIO()

    async def test() -> None:
        async with serving(Shelf(make_servable())) as server:
            here = code.replace("127.0.0.1:50051", server.address)
            with redirect_stdout(printed):
                await asyncio.to_thread(exec, here, {})

    run(test())
    assert re.match(r"\['\w+'\] \[[023]\] \[\[0\.", printed.getvalue())
