"""Whether what a device says of its classes fits the question; pure checks."""

import numpy as np

from common.task import Task
from common.wire import QueryReply

SLACK = 1.001
"""By how much sums may be off, as a factor."""


def impossible_statistic(profile: QueryReply, task: Task, projections: int) -> str:
    """Return what is wrong with a device's class means; "" if nothing is.

    Parameters
    ----------
    task : Task
        That it was asked with; where its scale is not known yet, nothing can be said.
    projections : int
        How many were asked for; 0 for none.
    """
    means = profile.statistic_means
    counts, covariance = profile.statistic_counts, profile.statistic_covariance
    if not (means or counts or covariance):
        asked = projections and not task.needs_moments
        return "states no class means of its samples" if asked else ""
    classes, triangle = task.num_classes, projections * (projections + 1) // 2
    wanted = (classes * projections, classes if projections else 0, triangle)
    if (len(means), len(counts), len(covariance)) != wanted:
        return (
            f"states {len(means)} values of class means, {len(counts)} counts and "
            f"{len(covariance)} covariances: {wanted[0]}, {wanted[1]} and {wanted[2]} "
            "were asked for"
        )
    if sum(counts) > profile.num_examples:
        return (
            f"states class means of {sum(counts)} samples, of "
            f"{profile.num_examples} that it trains on"
        )
    upper = np.zeros((projections, projections))
    upper[np.triu_indices(projections)] = covariance
    spread = upper.diagonal()
    if (spread < 0).any() or (upper**2 > SLACK * np.outer(spread, spread)).any():
        return "states covariances that no samples have"
    return ""
