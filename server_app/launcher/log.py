"""What the user sees of a run: its own lines, without Flower's and Ray's boilerplate.

Only lines that are known to say nothing are dropped, one by one: a warning or an error
that nobody has seen before always gets through.
"""

import re

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: Flower's prefix; its padding is cut, the message's own indentation is not.
_LEVEL = re.compile(
    r"(?:(INFO) *: {0,6}|(DEBUG|WARNING|ERROR|CRITICAL) *: *)(.*)", re.DOTALL
)
_STARTED = re.compile(r"Successfully started run (\d+)")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?$")

_NOISE = re.compile(
    r"""
      Using\ SuperLink:
    | Successfully\ started\ run
    | Successfully\ installed\ \S+\ to
    | Starting\ logstream\ for\ run_id
    | Starting\ Flower\ Simulation$
    | Since\ flwr\ 1\.32,\ default\ simulated\ SuperNodes
    | Federation\ `.*`\ \(\d+\ simulated\ SuperNodes\)
    | To\ change\ federation\ size,
    | \s*flwr\ federation\ simulation-config\ 
    | \(ClientAppActor\ pid=\d+\)\ .*Manually\ terminating\ ClientAppActor
    | .*/ray/_private/worker\.py:\d+:\ FutureWarning:\ Tip:
    | \s+warnings\.warn\($
    """,
    re.VERBOSE,
)


class LogFilter:
    """Turns the raw output of ``flwr run --stream`` into the lines worth showing.

    Attributes
    ----------
    run_id : str
        The run's number once Flower has named it, else ``""``.
    exception : str
        Last line of the last traceback seen (``"ValueError: ..."``), else ``""``.
    """

    def __init__(self) -> None:
        self.run_id = ""
        self.exception = ""
        self._in_traceback = False

    def feed(self, line: str) -> str | None:
        """Return the line to show for a raw one, or None to show nothing."""
        plain = _ANSI.sub("", line).rstrip()
        level, text = "", plain
        if match := _LEVEL.match(plain):
            level, text = match.group(1) or match.group(2), match.group(3)
        if match := _STARTED.match(text):
            self.run_id = match.group(1)
        self._follow_traceback(plain)
        if _NOISE.match(text):
            return None
        if level == "INFO":
            # The level of ordinary progress is no news: tables stay aligned.
            return text or None
        return f"{level}: {text}" if level else plain

    def _follow_traceback(self, plain: str) -> None:
        if plain.startswith("Traceback (most recent call last):"):
            self._in_traceback = True
        elif self._in_traceback and plain and not plain.startswith(" "):
            self._in_traceback = False
            if _EXCEPTION.match(plain):
                self.exception = plain
