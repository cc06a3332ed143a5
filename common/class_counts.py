"""Answers of a model counted by class: accuracy, recall and balanced accuracy.

Counts are whole numbers, so those of several devices or test sets add up exactly. How
much they say depends on the number of classes, since they travel in messages:

- up to :data:`MOST_SQUARE` classes, the confusion matrix, row by row (rows: the true
  class, columns: the answer);
- beyond, the right answers of every class, then the samples of every class;
- where classes are private (``private-counts``), the right answers and the samples of
  all classes together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_SQUARE = 100
"""Classes up to which the whole confusion matrix is kept."""


def most_counts(num_classes: int) -> int:
    """Return how many numbers counts have at most."""
    square = num_classes <= MOST_SQUARE
    return max(2, num_classes**2 if square else 2 * num_classes)


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """What a model answered to samples whose class is known.

    Attributes
    ----------
    numbers : ndarray of int64, shape (K * K,), (2 * K,) or (2,)
        As the module says.
    num_classes : int
        K.
    """

    numbers: NDArray[np.int64]
    num_classes: int

    @classmethod
    def of(
        cls, labels: ArrayLike, answers: ArrayLike, num_classes: int
    ) -> "ClassCounts":
        """Count answers.

        Parameters
        ----------
        labels, answers : array_like of int, shape (n,)
            True and predicted class of every sample.
        num_classes : int
        """
        true = np.asarray(labels, dtype=np.int64)
        given = np.asarray(answers, dtype=np.int64)
        if num_classes <= MOST_SQUARE:
            pairs = true * num_classes + given
            return cls(np.bincount(pairs, minlength=num_classes**2), num_classes)
        hits = np.bincount(true[true == given], minlength=num_classes)
        samples = np.bincount(true, minlength=num_classes)
        return cls(np.concatenate([hits, samples]), num_classes)

    @classmethod
    def read(cls, numbers: Sequence[int], num_classes: int) -> "ClassCounts":
        """Take counts over from a message or a file.

        Raises
        ------
        ValueError
            If these are no counts of so many classes.
        """
        full = most_counts(num_classes)
        if len(numbers) not in (2, full):
            raise ValueError(
                f"{len(numbers)} counts of {num_classes} classes, expected {full}, or "
                "2 for all classes together"
            )
        found = cls(np.array(numbers, dtype=np.int64), num_classes)
        hits, samples = found._sums
        if (found.numbers < 0).any() or (hits > samples).any():
            raise ValueError("counts below 0, or more right answers than samples")
        return found

    @property
    def by_class(self) -> bool:
        """Whether they tell classes apart."""
        return len(self.numbers) == most_counts(self.num_classes)

    @property
    def matrix(self) -> NDArray[np.int64] | None:
        """The confusion matrix, shape (K, K); None where they do not say as much."""
        if not self.by_class or self.num_classes > MOST_SQUARE:
            return None
        return self.numbers.reshape(self.num_classes, self.num_classes)

    @property
    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Right answers and samples, by class or of all together."""
        if (matrix := self.matrix) is not None:
            return matrix.diagonal(), matrix.sum(1)
        hits, samples = np.split(self.numbers, 2)
        return hits, samples

    @property
    def correct(self) -> int:
        """Right answers."""
        return int(self._sums[0].sum())

    @property
    def total(self) -> int:
        """Samples."""
        return int(self._sums[1].sum())

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None without a sample."""
        return self.correct / self.total if self.total else None

    @property
    def recall(self) -> list[float | None] | None:
        """Share of every class's samples that were found, length K.

        None for a class without a sample, and instead of the list where classes are not
        told apart.
        """
        if not self.by_class:
            return None
        pairs = zip(*(each.tolist() for each in self._sums), strict=True)
        return [hits / samples if samples else None for hits, samples in pairs]

    @property
    def balanced(self) -> float | None:
        """Balanced accuracy: the mean recall of the classes that have samples."""
        known = [share for share in self.recall or [] if share is not None]
        return float(np.mean(known)) if known else None

    def times(self, number: int) -> "ClassCounts":
        """Return the counts of so many models or test sets like this one."""
        return ClassCounts(self.numbers * number, self.num_classes)

    def without_classes(self) -> "ClassCounts":
        """Return the same with all classes together."""
        numbers = np.array([self.correct, self.total], dtype=np.int64)
        return ClassCounts(numbers, self.num_classes)


def summed(counts: Iterable[ClassCounts]) -> ClassCounts | None:
    """Return the sum of counts of one model or several; None of none.

    Where some of them do not tell classes apart, the sum does not either.
    """
    found = list(counts)
    if not found:
        return None
    if not all(each.by_class for each in found):
        found = [each.without_classes() for each in found]
    numbers = np.stack([each.numbers for each in found]).sum(axis=0)
    return ClassCounts(numbers, found[0].num_classes)
