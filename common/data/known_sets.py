"""The data sets that go by a known name: what each one is and where it comes from.

The constants of the images, after division by 255: CIFAR-10, EMNIST letters and
Fashion-MNIST are the channel mean and standard deviation of their training images;
GTSRB those of its full training set at 32x32.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from common.data.dataset import Dataset, Normaliser
from common.data.digits import read_digits


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a known set is, and where it comes from.

    Attributes
    ----------
    num_classes : int
    input_shape : tuple of int
        Of images in bytes; () of texts.
    normaliser : Normaliser
        Of such images.
    files : tuple of str
        File names looked for in the data directory, first match wins; none for a data
        set that is embedded in a package.
    about : str
        What a file to be put there by hand is; empty for one that is downloaded.
    embedded : Callable[[], Dataset] or None
        Reads it out of a package.
    """

    num_classes: int
    input_shape: tuple[int, ...] = ()
    normaliser: Normaliser = field(default_factory=Normaliser)
    files: tuple[str, ...] = ()
    about: str = ""
    embedded: Callable[[], Dataset] | None = None

    def is_it(self, found: Dataset) -> bool:
        """Whether what was read from a file is this set, or a part of it."""
        if found.num_classes != self.num_classes or self.embedded is not None:
            return False
        if not self.input_shape:
            return found.vocabulary > 0 and not found.class_names
        return found.x_train.dtype == np.uint8 and found.input_shape == self.input_shape


def _images(
    name: str,
    num_classes: int,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *aliases: str,
) -> Source:
    """Return the source of a known set of square images in bytes."""
    return Source(
        num_classes=num_classes,
        input_shape=(len(mean), size, size),
        normaliser=Normaliser(scale=255.0, mean=mean, std=std),
        files=tuple(f"{stem}.npz" for stem in (name, *aliases)),
    )


def _texts(name: str, num_classes: int, about: str) -> Source:
    """Return the source of a known set of texts, which is not downloaded."""
    return Source(
        num_classes=num_classes,
        files=(f"{name}.jsonl", f"{name}.jsonl.gz"),
        about=f"a line is an object with the fields text and label; {about}",
    )


DATASETS: dict[str, Source] = {
    "digits": Source(num_classes=10, input_shape=(1, 8, 8), embedded=read_digits),
    "cifar10": _images(
        "cifar10", 10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "emnist": _images("emnist", 26, 28, (0.1722,), (0.3309,), "emnist_letters"),
    "gtsrb": _images(
        "gtsrb", 43, 32, (0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)
    ),
    "fashion_mnist": _images("fashion_mnist", 10, 28, (0.2860,), (0.3530,)),
    "reviews": _texts(
        "reviews",
        4,
        "Multi-Domain Sentiment: labels 0 to 3 for 1, 2, 4 and 5 stars, field group "
        "for the product domain",
    ),
    "sent140": _texts("sent140", 2, "Sentiment140: labels 0 and 1 for bad and good"),
}
