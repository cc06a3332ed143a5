"""How a run in this process is told: plain lines on two streams."""

import logging
import sys


class PlainLog(logging.Handler):
    """Progress goes to standard output, warnings and errors to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; a reader that has gone ends the run, a full disk does not."""
        text, stream = self.format(record), sys.stdout
        if record.levelno > logging.INFO:
            text, stream = f"{record.levelname}: {text}", sys.stderr
        try:
            print(text, file=stream, flush=True)
        except BrokenPipeError:
            raise
        except OSError:
            pass  # what is trained is worth more than what is told of it
