"""What only the tutorial's scripts need. To use the pattern on your own tables, take `lag_detector` instead.

settings        every environment variable, and where things live
visits          the table, and the names of its metrics
session         the session of the scripts, by `fast_spark`
files           a path in the warehouse, on any file system
reset           python -m tutorial.reset: delete the table, the checkpoints and the gauges, and nothing of others
script          how a script ends
checkpoint      whether a consumer's checkpoint can be used
error_messages  what Spark, Delta and Java say, as one sentence
"""
