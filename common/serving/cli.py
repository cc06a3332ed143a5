"""What the predict, serve and export commands of both sides share.

The sides differ in where a model comes from (:class:`Source`) and how much memory they
may take; options, files and errors are the same.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import numpy as np
import torch

from common.files import atomic_write
from common.inputs import InputError
from common.serving.budget import parse_bytes
from common.serving.samples import read_samples
from common.serving.servable import Predictions, Source, SourceError


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to predict and where the answers go."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="X.npz|FOLDER",
        help="array 'x' of samples as the data set stores them, or a folder of images",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT.npz",
        help="write probabilities, classes, experts and names there, print no lines",
    )
    _add_threads(parser)


def predict(source: Source, args: argparse.Namespace) -> int:
    """Answer the samples of ``--input``."""
    torch.set_num_threads(args.threads)
    try:
        servable = source.load()
        names, x = read_samples(args.input, servable.inputs)
        found = servable.predict(x)
    except (SourceError, InputError) as error:
        return _fail(error)
    if args.output is None:
        _print(names, found)
    else:
        try:
            with atomic_write(args.output, 0o644) as file:
                np.savez_compressed(file, names=names, **found._asdict())
        except OSError as error:
            return _fail(error)
    print(f"{len(x)} samples answered by {servable.name}", file=sys.stderr)
    return 0


def _print(names: list[str], found: Predictions) -> None:
    width = max(len("sample"), *map(len, names))
    print(f"{'sample':<{width}}  class  probability  expert")
    for name, probabilities, chosen, expert in zip(names, *found, strict=True):
        by = "-" if expert < 0 else expert
        print(f"{name:<{width}}  {chosen:>5}  {probabilities[chosen]:>11.4f}  {by:>6}")


def add_serve_arguments(parser: argparse.ArgumentParser, memory: int) -> None:
    """Declare how to serve; ``memory`` is the default budget in bytes."""
    parser.add_argument(
        "--listen",
        default="127.0.0.1:50051",
        metavar="HOST:PORT",
        help="address (%(default)s); port 0 takes a free one",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="own certificate")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    parser.add_argument(
        "--tls-ca",
        type=Path,
        metavar="PEM",
        help="only serve callers with a certificate of this authority",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="serve in plain text on another address than the loopback",
    )
    parser.add_argument(
        "--memory",
        type=_size,
        default=memory,
        metavar="SIZE",
        help=f"bytes for models, queue and batches ({memory / 1e6:.0f}M)",
    )
    parser.add_argument(
        "--max-batch",
        type=_positive,
        default=32,
        metavar="N",
        help="samples computed together (%(default)s); 1: no batching",
    )
    parser.add_argument(
        "--max-queue",
        type=_positive,
        default=256,
        metavar="N",
        help="requests that may wait (%(default)s)",
    )
    parser.add_argument(
        "--poll",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how often to look for a newer model (%(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long requests may take to finish when stopping (%(default)s)",
    )
    _add_threads(parser)


def serve(source: Source, args: argparse.Namespace) -> int:
    """Serve until told to stop; 2 for what cannot be served."""
    # Late: predicting and exporting need no gRPC.
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
        )
        asyncio.run(run(source, options))
    except (SourceError, CredentialsError, OSError) as error:
        return _fail(error)
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to write."""
    parser.add_argument("--format", choices=("onnx", "executorch"), default="onnx")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="(model.onnx, model.pte)"
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="X.npz|FOLDER",
        help="quantise to int8, ranges taken from these samples (onnx)",
    )


def export(source: Source, args: argparse.Namespace) -> int:
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
            samples = None
            if args.int8 is not None:
                _, samples = read_samples(args.int8, servable.inputs)
            written = exporter.export_onnx(servable, path, samples)
        else:
            written = exporter.export_executorch(servable, path)
    except (SourceError, InputError, exporter.ExportError) as error:
        return _fail(error)
    kind = f"ONNX opset {exporter.OPSET}" if onnx else "ExecuTorch"
    print(
        f"{written.path}: {kind}{', int8' if args.int8 else ''}, {written.nbytes} "
        f"bytes ({servable.nbytes} in torch); {servable.name}"
    )
    print(
        f"largest difference of a probability from torch {written.difference:.2g}, "
        f"same class in {written.agreement:.1%} of {written.samples} samples"
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


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="torch threads (1)"
    )


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
