"""The error that ends a run for a reason its user should know."""


class RunError(RuntimeError):
    """The run failed or cannot go on; the message is one readable line."""
