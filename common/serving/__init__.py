"""Answering requests with a trained mixture: predict, gRPC service, export.

Both sides use it: a device with its experts and its private gate, the server with the
whole mixture. Where a model comes from is theirs (``client_app.kept.snapshot``,
``server_app.run_source``).
"""
