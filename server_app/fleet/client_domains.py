"""In which domain a client is, as the server works it out for itself."""

from common.data import FOLDERS, PLAIN, Domain, domains_of, parse_partition
from common.settings import Settings
from common.shape import dataset_of
from common.wire import QueryReply


def domain_of(settings: Settings, profile: QueryReply) -> Domain | None:
    """Return what a client's samples go through (``common.data.domains``).

    It follows from the share of the data that the client says it has. Data of a
    device's own are as they are, and so are those of one whose share there cannot be.

    Returns
    -------
    Domain or None
        None where the partition says of no device that it differs.
    """
    if settings.data.partition == FOLDERS:
        return None
    spec = parse_partition(settings.data.partition)
    if not spec.factors:
        return None
    share, of = profile.partition_id, profile.num_partitions
    dataset, seed = dataset_of(settings), settings.run.seed
    if not 0 <= share < of <= len(dataset.y_train):
        return PLAIN
    try:
        return domains_of(dataset, spec, of, seed)[share]
    except ValueError:  # fewer shares than groups: no device can have one
        return PLAIN
