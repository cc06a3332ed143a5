"""What a file says, read again when it changes: lists, certificates, models."""

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Newest(Generic[Value]):
    """The newest value that could be read.

    Parameters
    ----------
    name : str
        What it is, for the log.
    version : callable
        Returns something else whenever there is another value.
    read : callable
        Returns the value.
    error : type of exception
        What both raise of a value that cannot be read; the first must not.
    log : Logger

    Attributes
    ----------
    value
    """

    def __init__(
        self,
        name: str,
        version: Callable[[], Hashable],
        read: Callable[[], Value],
        error: type[Exception],
        log: logging.Logger,
    ) -> None:
        self._name, self._version, self._read = name, version, read
        self._error, self._log = error, log
        # Before it is read: what changes meanwhile is read again.
        self._seen = version()
        self.value = read()

    def refresh(self) -> bool:
        """Read again if there is another value; return whether there is a new one.

        One that cannot be read is complained about once, and the one before is kept.
        """
        try:
            now = self._version()
            if now == self._seen:
                return False
            self._seen = now
            self.value = self._read()
        except self._error as error:
            self._log.error("keeping %s: %s", self._name, error)
            return False
        return True
