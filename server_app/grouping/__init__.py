"""Which clients belong together, by what they say of their data; pure.

Scores are in ``scores``, the merge test in ``groups``, and who is served by which copy
of an expert in ``slots``. Arrays come in, arrays go out. What clients say, and how it
is sent, is ``common.wire``'s and ``client_app``'s business.
"""

from server_app.grouping.groups import MergeTest, groups_of, nearest
from server_app.grouping.scores import ClassMeans, whitener
from server_app.grouping.slots import place

__all__ = ["ClassMeans", "MergeTest", "groups_of", "nearest", "place", "whitener"]
