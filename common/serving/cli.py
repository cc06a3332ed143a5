"""What the predict, serve and export commands of both sides share.

The sides differ in where a model comes from (:class:`ModelSource`) and how much memory
they may take; options, files and errors are the same.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.inputs import InputError
from common.own.found import Skipped
from common.plausible import doubtful
from common.serving.answers import Omitted, Score, written
from common.serving.samples import (
    Batch,
    calibration_samples,
    named_texts,
    read_samples,
    read_texts,
)
from common.serving.servable import ModelSource, SourceError
from common.settings.sizes import parse_bytes

if TYPE_CHECKING:
    from common.serving.callers import CallerList


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to predict and where the answers go."""
    text = (
        "a file or folder as devices read them (images, class folders, CSV, Parquet, "
        "JSON lines, texts), or the array 'x' of an .npz"
    )
    parser.add_argument("--input", type=Path, metavar="PATH", help=text)
    text = "a text to be answered; may be given several times"
    parser.add_argument("--text", action="append", default=[], help=text)
    text = (
        "write the answers there (.npz: with all probabilities; .csv, .jsonl), print "
        "no table"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)
    _add_threads(parser)


def predict(source: ModelSource, args: argparse.Namespace) -> int:
    """Answer ``--input`` or the texts; 2 if there was nothing that could be answered.

    What cannot be used is named on stderr, and the rest is answered.
    """
    torch.set_num_threads(args.threads)
    omitted, answered = Omitted(), 0
    try:
        if (args.input is None) == (not args.text):
            raise InputError("give either --input PATH or --text TEXT")
        servable = source.load()
        task = servable.task
        score, odd = Score(task), ""
        samples: Iterable[Batch | Skipped] = (
            read_samples(args.input, servable)
            if args.input is not None
            else read_texts(named_texts(args.text), servable)
        )
        with written(args.output, task) as take:
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
                raise InputError(f"{args.input}: no sample that can be answered")
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


def add_serve_arguments(parser: argparse.ArgumentParser, memory: int) -> None:
    """Declare how to serve; ``memory`` is the default budget in bytes."""

    def add(flag: str, kind: Any, default: Any, metavar: str, text: str) -> None:
        parser.add_argument(
            flag, type=kind, default=default, metavar=metavar, help=text
        )

    text = "address (%(default)s); port 0 takes a free one"
    add("--listen", str, "127.0.0.1:50051", "HOST:PORT", text)
    add("--tls-cert", Path, None, "PEM", "own certificate")
    add("--tls-key", Path, None, "PEM", "its private key")
    text = "only serve callers with a certificate of this authority"
    add("--tls-ca", Path, None, "PEM", text)
    text = "serve in plain text on another address than the loopback"
    parser.add_argument("--insecure", action="store_true", help=text)
    text = (
        "bytes for models, messages, queue and batches, beside the some hundred "
        f"MB of the interpreter and torch ({memory / 1e6:.0f}M)"
    )
    add("--memory", _size, memory, "SIZE", text)
    text = "samples computed together (%(default)s); 1: no batching"
    add("--max-batch", _positive, 32, "N", text)
    text = "calls that may wait for a place (%(default)s)"
    add("--max-queue", _positive, 256, "N", text)
    text = "how often to look for a newer model (%(default)s)"
    add("--poll", _seconds, 2.0, "SECONDS", text)
    text = "how long requests may take to finish when stopping (%(default)s)"
    add("--grace", _seconds, 10.0, "SECONDS", text)
    text = "how long a caller may neither send nor take, or wait (%(default)s)"
    add("--idle", _seconds, 60.0, "SECONDS", text)
    _add_threads(parser)


def serve(
    source: ModelSource, args: argparse.Namespace, members: "CallerList | None" = None
) -> int:
    """Serve ``members``, or whom TLS lets in; 2 for what cannot be served."""
    # Late: predicting and exporting need no gRPC.
    from common.serving.callers import CallerListError
    from common.serving.credentials import Credentials, CredentialsError
    from common.serving.server import ServeOptions
    from common.serving.server import serve as run

    torch.set_num_threads(args.threads)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level="INFO")
    try:
        credentials = Credentials.read(args.tls_cert, args.tls_key, args.tls_ca)
        host, port = _address(args.listen)
        if credentials is None and not args.insecure and not _is_loopback(host):
            raise CredentialsError(
                f"--listen {args.listen} is reachable from outside: give --tls-cert "
                "and --tls-key, or --insecure to serve it in plain text"
            )
        options = ServeOptions(
            host=host,
            port=port,
            credentials=credentials,
            memory=args.memory,
            batch=args.max_batch,
            queue=args.max_queue,
            poll=args.poll,
            grace=args.grace,
            idle=args.idle,
            members=members,
        )
        asyncio.run(run(source, options))
    except (SourceError, CredentialsError, CallerListError, OSError) as error:
        return _fail(error)
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to write."""
    parser.add_argument("--format", choices=("onnx", "executorch"), default="onnx")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="(model.onnx, model.pte)"
    )
    text = (
        "quantise to int8, ranges taken from four fifths of these samples, compared "
        "on the others (onnx)"
    )
    parser.add_argument("--int8", type=Path, metavar="PATH", help=text)


def export(source: ModelSource, args: argparse.Namespace) -> int:
    """Write the model as one file and say how it compares with torch."""
    # Late: it needs packages that only an exporter has.
    from common.serving import export as exporter

    onnx = args.format == "onnx"
    path = args.output or Path("model.onnx" if onnx else "model.pte")
    try:
        if args.int8 is not None and not onnx:
            raise InputError("--int8 goes with --format onnx only")
        servable = source.load()
        if onnx:
            given = args.int8
            samples = calibration_samples(given, servable) if given else None
            written = exporter.export_onnx(servable, path, samples)
        else:
            written = exporter.export_executorch(servable, path)
    except (SourceError, InputError, exporter.ExportError) as error:
        return _fail(error)
    kind = f"ONNX opset {exporter.OPSET}" if onnx else "ExecuTorch"
    which = "samples the ranges were not taken from" if args.int8 else "samples"
    print(
        f"{written.path}: {kind}{', int8' if args.int8 else ''}, {written.nbytes} "
        f"bytes ({servable.nbytes} in torch); {servable.name}"
    )
    print(
        f"largest difference of a probability from torch {written.difference:.2g}, "
        f"same class in {written.agreement:.1%} of {written.samples} {which}"
    )
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise SourceError(f"--listen {text!r} is not HOST:PORT")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "[::1]") or host.startswith("127.")


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="torch threads (1)"
    )


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
