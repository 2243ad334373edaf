"""The exception that the library raises."""


class LagDetectorError(Exception):
    """A problem that the caller can fix. Its message is one sentence that says how."""
