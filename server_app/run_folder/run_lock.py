"""One server at a time writes a run: a lock that the death of its holder releases."""

import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from common.text import reason
from server_app.run_folder.run_files import RunFileError

logger = logging.getLogger("flwr.expertfleet")

FILE = "lock"


def is_held(folder: Path) -> bool:
    """Whether somebody writes a run at the moment; also where that cannot be told."""
    try:
        import fcntl

        with (folder / FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # a copy of a run, say
        return False
    except (ImportError, OSError):  # not POSIX; some network file systems
        return True
    return False


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
            for _ in range(5):  # who only asks whether it is held lets go at once
                with suppress(BlockingIOError):
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                time.sleep(0.05)
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
