"""One server at a time writes a run: a lock that the death of its holder releases."""

import logging
import os
import socket
from pathlib import Path

from common.text import reason
from server_app.run_folder.run_files import RunFileError

logger = logging.getLogger("flwr.expertfleet")

FILE = "lock"


class RunLock:
    """An exclusive ``flock`` on ``<run>/lock``, which says who holds it.

    Parameters
    ----------
    folder : Path
        The run's directory.

    Raises
    ------
    RunFileError
        If somebody else holds it.
    OSError
        If the directory cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILE).open("a+b")
        try:
            self._take(folder)
            self._file.truncate(0)
            self._file.write(
                f"process {os.getpid()} on {socket.gethostname()}".encode()
            )
            self._file.flush()
            os.fsync(self._file.fileno())
        except BaseException:
            self._file.close()
            raise

    def _take(self, folder: Path) -> None:
        try:
            import fcntl
        except ImportError:  # not POSIX
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(200).decode("utf-8", "replace") or "another server"
            raise RunFileError(
                f"{folder} is being written by {holder}: stop that one first"
            ) from None
        except OSError as error:  # some network file systems
            logger.warning("%s cannot be locked: %s", folder, reason(error))

    def release(self) -> None:
        """Let go; a second call does nothing."""
        self._file.close()
