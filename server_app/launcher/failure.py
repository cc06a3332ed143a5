"""Why a run of Flower's did not complete: one line, out of what it said."""

from collections.abc import Sequence

from server_app.launcher.superlink import SuperLink, last_line

#: What Ray raises then; Flower shows it and ends in an error that says nothing.
RAY_IS_LATE = "The current node timed out during startup"


def failure(link: SuperLink, lines: Sequence[str]) -> str | None:
    """Return why a run did not complete, or None if it did."""
    ended = link.outcome()
    if ended is None:
        # What Flower said last, without the frame it draws around an error.
        told = [line.strip(" |\u2502") for line in lines]
        said = last_line([text for text in told if any(map(str.isalnum, text))])
        return f"`flwr run` could not start it: {said}"
    status, details = ended
    if status == "finished:completed":
        return None
    if any(RAY_IS_LATE in line for line in lines):
        # Not started again here: the ServerApp has begun, and has made its folder.
        return (
            "Ray did not start within the 30 s that it gives itself: start the run "
            "again when the machine is less busy"
        )
    return last_exception(lines) or details or status


def last_exception(lines: Sequence[str]) -> str:
    """Return the line that the last traceback ends with, ``""`` without any."""
    found, inside = "", False
    for line in lines:
        if line.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and line and not line.startswith(" "):
            found, inside = line, False
    return found
