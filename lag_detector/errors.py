"""The exceptions that the library raises."""


class LagDetectorError(Exception):
    """A problem that the caller can fix. Its message is one sentence that says how."""


class PushgatewayError(LagDetectorError):
    """The Pushgateway could not be reached or, if `rejected` is true, refused the request: a retry cannot help."""

    def __init__(self, message: str, rejected: bool) -> None:
        super().__init__(message)
        self.rejected = rejected
