"""The exception that this package raises."""


class SparkStartError(Exception):
    """Spark cannot start. The message is one sentence that says why and how to fix it."""
