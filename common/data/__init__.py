"""Data: sets by name, partitions among clients, and what one client sees of them."""

from common.data.clients import (
    ClientData,
    client_partition,
    domains_of,
    load_client_data,
    reserved_split,
    seen_in,
)
from common.data.dataset import Dataset, Kind, Normaliser, model_input
from common.data.datasets import load_dataset
from common.data.domains import PLAIN, Domain
from common.data.drift import share_moved
from common.data.fingerprint import Fingerprint, fingerprint, labels_hash
from common.data.known_sets import DATASETS
from common.data.partition import (
    FOLDERS,
    PartitionSpec,
    parse_partition,
    partition,
    partition_hash,
)
from common.data.partition_kinds import Request
from common.data.splits import held_out_split, stratified_subset
from common.data.tokens import PADDING, HashedPieces, Tokeniser

__all__ = [
    "DATASETS",
    "FOLDERS",
    "PADDING",
    "PLAIN",
    "ClientData",
    "Dataset",
    "Domain",
    "Fingerprint",
    "HashedPieces",
    "Kind",
    "Normaliser",
    "PartitionSpec",
    "Request",
    "Tokeniser",
    "client_partition",
    "domains_of",
    "fingerprint",
    "held_out_split",
    "labels_hash",
    "load_client_data",
    "load_dataset",
    "model_input",
    "parse_partition",
    "partition",
    "partition_hash",
    "reserved_split",
    "seen_in",
    "share_moved",
    "stratified_subset",
]
