"""The error that the reader can mend, and the words that several places say."""

DEBUG = "LAG_DETECTOR_DEBUG"

READ_ONLY = "the warehouse cannot be written; set VISITS_WAREHOUSE to a folder that is yours to write"
JAVA_ENDED = "Spark's own process has ended before its time (killed, or out of memory); run it again to go on"
START_OVER = "start over with python create_table.py"


class LagDetectorError(Exception):
    """A problem that the reader can mend; its text is one sentence that says how."""
