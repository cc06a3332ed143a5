"""``python -m expertfleet``: the same as ``expertfleet``."""

import sys

from expertfleet.cli import main

if __name__ == "__main__":
    sys.exit(main())
