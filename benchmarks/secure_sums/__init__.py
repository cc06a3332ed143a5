"""A prototype of secure sums for partial payloads; not part of the app.

docs/privacy.md says what it shows, and why it is not in the app yet.
"""
