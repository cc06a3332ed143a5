"""What a client says of its data when it is first asked.

Counts and sums, never a sample. Not here: reading the data (``common.own``).
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_app.device.node import NAMELESS
from client_app.session import Session
from common.data import fingerprint
from common.own.own_data import OwnData


def described(session: Session) -> dict[str, Any]:
    """Return the fields of :class:`common.wire.QueryReply` that are about the data."""
    if session.own is not None:
        return _of_its_own(session, session.own)
    share = session.partition_id, session.num_partitions
    data = fingerprint(session.dataset)
    return {
        "partition_id": share[0],
        "num_partitions": share[1],
        "data_hash": data.train,
        "test_hash": data.test,
        "rows": len(session.data.train) + len(session.data.held_out),
    }


def _of_its_own(session: Session, own: OwnData) -> dict[str, Any]:
    unnamed = [] if session.node.name else [NAMELESS]
    fields: dict[str, Any] = {
        "partition_id": -1,
        "num_partitions": 0,
        "data_hash": own.digest,
        "rows": own.rows,
        "unreadable": len(own.skipped),
        "data_format": own.format or own.path.suffix.removeprefix("."),
        "warnings": [_line(note) for note in [*unnamed, *own.notes][:8]],
    }
    counts = np.bincount(own.y_train, minlength=own.num_classes)
    if session.settings.data.private_counts:
        counts = at_least(counts)
    fields["per_class"] = counts.tolist()
    if session.server_data:
        fields["test_hash"] = own.marks.whole
        fields["test_samples_hash"] = own.marks.samples
    # Also where the scale is known: the server then sees who does not fit it.
    if (moments := own.moments()) is not None:
        fields |= {f"moments_{k}": v.tolist() for k, v in asdict(moments).items()}
    return fields


def at_least(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round counts down to 10, 100, 1000, ...; fewer than ten become 0.

    All that ``private-counts`` lets the server know of a class. How many samples there
    are in all, every report says: the device's updates are weighted by it.
    """
    return np.array([10 ** (len(str(n)) - 1) if n >= 10 else 0 for n in counts])


def _line(text: str) -> str:
    """Return a note as a line that a message may carry."""
    return text.encode("ascii", "backslashreplace").decode()[:200]
