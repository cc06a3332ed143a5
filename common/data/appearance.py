"""What an unlike device makes of an image: turned, inverted, blurred or pale.

Brightness is counted in full brightnesses here, 0 (black) to 1 (white). Which device
is how is ``domains``.
"""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
"""Shape (B, channels, height, width)."""

BLUR = 1 / 12
"""Standard deviation of the blur, in shorter sides of the image."""

CONTRAST, GREY = 0.35, 0.6
"""Low contrast: what is left of the brightness, and what is added."""

PHOTOMETRIC = ("as it is", "inverted", "blurred", "low contrast")


def turned(x: Images, degrees: float) -> Images:
    """Turn images anticlockwise about their centre, within their frame.

    A quarter turn (of images that are not square: half a turn) moves pixels and changes
    none; other angles are bilinear, and what comes in from outside is black.
    """
    quarters, rest = divmod(degrees, 90)
    square = x.shape[-1] == x.shape[-2]
    if not rest and (square or not quarters % 2):
        return np.rot90(x, int(quarters), axes=(2, 3))
    from scipy.ndimage import rotate

    found: Images = rotate(x, degrees, axes=(3, 2), reshape=False, order=1)
    return found


def developed(x: Images, look: str) -> Images:
    """Return images as one of ``PHOTOMETRIC`` shows them."""
    match look:
        case "inverted":
            return 1 - x
        case "blurred":
            from scipy.ndimage import gaussian_filter

            spread = BLUR * min(x.shape[2:])
            found: Images = gaussian_filter(x, (0, 0, spread, spread))
            return found
        case "low contrast":
            return np.float32(CONTRAST) * x + np.float32(GREY)
    return x
