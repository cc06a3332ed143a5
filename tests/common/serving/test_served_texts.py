"""A model of texts, served: with its tokeniser, and without."""

import grpc
import numpy as np

from common.data import HashedPieces, Tokeniser
from common.moe.ensemble import GatedMixture
from common.serving import inference_pb2 as pb
from common.serving.servable import Servable
from common.serving.tensors import decode
from common.task import TextTask
from tests.common.moe.support import text_spec
from tests.common.serving.support import (
    Shelf,
    calling,
    refused,
    request,
    run,
    serving,
)

HASHED = HashedPieces(length=6, vocabulary=40)


def text_servable(tokeniser: Tokeniser | None = HASHED) -> Servable:
    task = TextTask(classes=("bad", "good"), length=6, vocabulary=40)
    spec = text_spec(input_shape=(6,), num_classes=2)
    return Servable(
        predictor=GatedMixture(spec.build(range(8), seed=1)),
        task=task,
        run="r",
        server_round=1,
        experts=tuple(range(8)),
        find_tokeniser=None if tokeniser is None else lambda: tokeniser,
    )


def test_texts_become_token_ids_on_the_server() -> None:
    servable = text_servable()
    texts = ["good great thing", "", "bad"]
    ids = HASHED.encode(texts).astype(np.int64)
    expected = servable.predict(ids)

    async def test() -> None:
        async with serving(Shelf(servable)) as server, calling(server) as stub:
            for asked in (pb.PredictRequest(texts=texts), request(ids)):
                reply = await stub.Predict(asked)
                found = decode(reply.probabilities, "probabilities")
                np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)
                assert set(reply.class_names) <= {"bad", "good"}
            error = await refused(stub.Predict(pb.PredictRequest(texts=["a"] * 257)))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "texts has 257 samples" in (error.details() or "")

    run(test())


def test_without_its_tokeniser_a_text_model_still_answers_ids() -> None:
    async def test() -> None:
        shelf = Shelf(text_servable(tokeniser=None))
        async with serving(shelf) as server, calling(server) as stub:
            await stub.Predict(request(np.ones((1, 6), np.int64)))
            error = await refused(stub.Predict(pb.PredictRequest(texts=["a"])))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "no tokeniser" in (error.details() or "")

    run(test())
