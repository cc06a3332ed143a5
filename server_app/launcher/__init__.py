"""A real ``flwr run`` on a SuperLink of its own, with a true exit code."""
