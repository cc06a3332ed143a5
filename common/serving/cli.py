"""What the predict, serve and export commands of both sides share.

The sides differ in where a model comes from (:class:`ModelSource`) and how much memory
they may take; options, files and errors are the same. What computes is imported when it
computes: help and completion are to be there at once.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import typer

from common.errors import SourceError
from common.exposition import MetricsError
from common.inputs import InputError
from common.own.found import Skipped
from common.plausible import doubtful
from common.settings.sizes import parse_bytes

if TYPE_CHECKING:
    from common.serving.callers import CallerList
    from common.serving.samples import Batch
    from common.serving.servable import ModelSource


def _parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let typer call a parser, whose ValueError is the user's error."""

    def convert(text: str) -> Any:
        try:
            return parse(str(text))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise ValueError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _option(text: str, metavar: str, parse: Callable[[str], Any] | None = None) -> Any:
    parser = None if parse is None else _parsed(parse)
    return typer.Option(help=text, metavar=metavar, parser=parser)


Memory = Annotated[
    int | None,
    _option(
        "bytes for models, messages, queue and batches, beside the some hundred MB of "
        "the interpreter and torch (default: a share of what the machine has)",
        "SIZE",
        parse_bytes,
    ),
]
Threads = Annotated[int, _option("torch threads", "N", _positive)]
Input = Annotated[
    Path | None,
    _option(
        "a file or folder as devices read them (images, class folders, CSV, Parquet, "
        "JSON lines, texts), or the array 'x' of an .npz",
        "PATH",
    ),
]
Texts = Annotated[
    list[str], _option("a text to be answered; may be given several times", "TEXT")
]
Answers = Annotated[
    Path | None,
    _option(
        "write the answers there (.npz: with all probabilities; .csv, .jsonl), print "
        "no table",
        "FILE",
    ),
]


def predict(
    source: "ModelSource",
    *,
    input: Input = None,
    text: Texts = [],  # noqa: B006  typer copies it
    output: Answers = None,
    threads: Threads = 1,
) -> int:
    """Answer samples or texts; 2 if there was nothing that could be answered.

    What cannot be used is named on stderr, and the rest is answered.
    """
    import torch

    from common.serving.answers import Omitted, Score, written
    from common.serving.samples import named_texts, read_samples, read_texts

    torch.set_num_threads(threads)
    omitted, answered = Omitted(), 0
    try:
        if (input is None) == (not text):
            raise InputError("give either --input PATH or --text TEXT")
        servable = source.load()
        task = servable.task
        score, odd = Score(task), ""
        samples: Iterable[Batch | Skipped] = (
            read_samples(input, servable)
            if input is not None
            else read_texts(named_texts(text), servable)
        )
        with written(output, task) as take:
            for part in samples:
                if isinstance(part, Skipped):
                    omitted.add(part.name, part.reason)
                    continue
                x = part.prepared(task)
                odd = odd or doubtful(task, part.x, x)
                found = servable.answer(torch.from_numpy(x))
                take(part, found)
                score.add(part, found)
                answered += len(x)
            if not answered:
                raise InputError(f"{input}: no sample that can be answered")
    except BrokenPipeError:  # whoever read the table has seen enough
        raise
    except (SourceError, InputError, OSError) as error:
        return _fail(error)
    if odd:
        print(f"warning: the input {odd}", file=sys.stderr)
    for line in score.lines():
        print(line, file=sys.stderr)
    skipped = f", {omitted.count} skipped" if omitted.count else ""
    print(
        f"{answered} samples answered by {servable.name}{skipped}",
        file=sys.stderr,
    )
    return 0


Pem = Path | None


def serve(
    source: "ModelSource",
    memory: int,
    members: "CallerList | None",
    *,
    listen: Annotated[
        str, _option("address; port 0 takes a free one", "HOST:PORT")
    ] = "127.0.0.1:50051",
    tls_cert: Annotated[Pem, _option("own certificate", "PEM")] = None,
    tls_key: Annotated[Pem, _option("its private key", "PEM")] = None,
    tls_ca: Annotated[
        Pem, _option("only serve callers with a certificate of this authority", "PEM")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="serve in plain text on another address than the loopback",
        ),
    ] = False,
    max_batch: Annotated[
        int, _option("samples computed together; 1: no batching", "N", _positive)
    ] = 32,
    max_queue: Annotated[
        int, _option("calls that may wait for a place", "N", _positive)
    ] = 256,
    poll: Annotated[
        float, _option("how often to look for a newer model", "SECONDS", _seconds)
    ] = 2.0,
    grace: Annotated[
        float,
        _option("how long requests may take when stopping", "SECONDS", _seconds),
    ] = 10.0,
    idle: Annotated[
        float,
        _option("how long a caller may neither send nor take", "SECONDS", _seconds),
    ] = 60.0,
    metrics: Annotated[
        str | None,
        _option("where Prometheus fetches metrics, in plain HTTP", "HOST:PORT"),
    ] = None,
    threads: Threads = 1,
) -> int:
    """Serve ``members``, or whom TLS lets in; 2 for what cannot be served."""
    # Late: predicting and exporting need no gRPC.
    import torch

    from common.serving.callers import CallerListError
    from common.serving.credentials import Credentials, CredentialsError
    from common.serving.server import ServeOptions
    from common.serving.server import serve as run

    torch.set_num_threads(threads)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level="INFO")
    try:
        credentials = Credentials.read(tls_cert, tls_key, tls_ca)
        host, port = _address(listen)
        scrape = None if metrics is None else _address(metrics, "--metrics")
        if credentials is None and not insecure and not _is_loopback(host):
            raise CredentialsError(
                f"--listen {listen} is reachable from outside: give --tls-cert "
                "and --tls-key, or --insecure to serve it in plain text"
            )
        options = ServeOptions(
            host=host,
            port=port,
            credentials=credentials,
            memory=memory,
            batch=max_batch,
            queue=max_queue,
            poll=poll,
            grace=grace,
            idle=idle,
            members=members,
            metrics=scrape,
        )
        asyncio.run(run(source, options))
    except (
        *(SourceError, CredentialsError, CallerListError),
        *(MetricsError, OSError),
    ) as error:
        return _fail(error)
    return 0


def export(
    source: "ModelSource",
    *,
    format: Annotated[
        Literal["onnx", "executorch"], typer.Option(help="of the file")
    ] = "onnx",
    output: Annotated[
        Path | None, _option("default: model.onnx or model.pte", "FILE")
    ] = None,
    int8: Annotated[
        Path | None,
        _option(
            "quantise to int8, ranges taken from four fifths of these samples, "
            "compared on the others (onnx)",
            "PATH",
        ),
    ] = None,
) -> int:
    """Write the model as one file and say how it compares with torch."""
    # Late: it needs packages that only an exporter has.
    from common.serving import export as exporter
    from common.serving.samples import calibration_samples

    onnx = format == "onnx"
    path = output or Path("model.onnx" if onnx else "model.pte")
    try:
        if int8 is not None and not onnx:
            raise InputError("--int8 goes with --format onnx only")
        servable = source.load()
        if onnx:
            given = int8
            samples = calibration_samples(given, servable) if given else None
            written = exporter.export_onnx(servable, path, samples)
        else:
            written = exporter.export_executorch(servable, path)
    except (SourceError, InputError, exporter.ExportError) as error:
        return _fail(error)
    kind = f"ONNX opset {exporter.OPSET}" if onnx else "ExecuTorch"
    which = "samples the ranges were not taken from" if int8 else "samples"
    print(
        f"{written.path}: {kind}{', int8' if int8 else ''}, {written.nbytes} "
        f"bytes ({servable.nbytes} in torch); {servable.name}"
    )
    print(
        f"largest difference of a probability from torch {written.difference:.2g}, "
        f"same class in {written.agreement:.1%} of {written.samples} {which}"
    )
    return 0


def _address(text: str, option: str = "--listen") -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise SourceError(f"{option} {text!r} is not HOST:PORT")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "[::1]") or host.startswith("127.")


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
