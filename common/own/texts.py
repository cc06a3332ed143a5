"""Files that are one text each.

Not here: texts in columns (``tables``).
"""

from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.data.jsonl import LONGEST
from common.data.tokens import Tokeniser
from common.errors import DataError
from common.own.folders import Entry
from common.own.found import Found, no_group
from common.own.lines import encoding_of, no_text
from common.own.tables import encoded
from common.task import TextTask


def text_file(
    entry: Entry, task: TextTask, tokeniser: Tokeniser, facts: dict[str, Any]
) -> Found:
    """Return a file as one sample, with its ``label``, ``group`` and ``test``."""
    value = partial(_read, entry.path, task, tokeniser)
    note = no_group(facts["group"], task)
    return Found(name=entry.name, value=value, stamp=entry.stamp, note=note, **facts)


def _read(path: Path, task: TextTask, tokeniser: Tokeniser) -> NDArray[Any]:
    with path.open("rb") as file:
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise DataError(f"has more than {LONGEST >> 20} MiB")
    if why := no_text(data):
        raise DataError(why)
    try:
        text = data.decode(encoding_of(data))
    except UnicodeError:
        raise DataError("is not in UTF-8: save the file in UTF-8") from None
    if not text.strip():
        raise DataError("the file is empty")
    return encoded(text, task, tokeniser)
