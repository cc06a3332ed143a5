"""Data: sets by name, partitions among clients, and what one client sees of them."""

from common.data.clients import (
    ClientData,
    client_partition,
    load_client_data,
    reserved_split,
)
from common.data.dataset import Dataset, Kind, Normaliser, model_input
from common.data.datasets import DATASETS, Source, load_dataset
from common.data.drift import share_moved
from common.data.errors import DataError
from common.data.partition import (
    PartitionSpec,
    parse_partition,
    partition,
    partition_hash,
)
from common.data.partition_kinds import PARTITIONS
from common.data.splits import held_out_split, stratified_subset
from common.data.tokens import PADDING, HashedPieces, Tokeniser

__all__ = [
    "DATASETS",
    "PADDING",
    "PARTITIONS",
    "ClientData",
    "DataError",
    "Dataset",
    "HashedPieces",
    "Kind",
    "Normaliser",
    "PartitionSpec",
    "Source",
    "Tokeniser",
    "client_partition",
    "held_out_split",
    "load_client_data",
    "load_dataset",
    "model_input",
    "parse_partition",
    "partition",
    "partition_hash",
    "reserved_split",
    "share_moved",
    "stratified_subset",
]
