"""What only the tutorial's scripts need. To use the pattern on your own tables, take `lag_detector` instead.

settings        every environment variable, and where things live
visits          the table, and the names of its metrics
session         a Spark session with Delta Lake
spark_process   starting Spark's own process by Spark's launcher
direct_start    starting it without the launcher
java            finding a Java that Spark runs on
java_archive    the archive from which Java starts faster: AppCDS or an AOT cache
jars            fetching Delta's jars once
fast_start      what makes a script that runs for seconds start fast
prepare         python -m tutorial.prepare: fetch the jars, make the archive
files           a path in the warehouse, on any file system
reset           python -m tutorial.reset: delete the table, the checkpoints and the gauges, and nothing of others
script          how a script ends
checkpoint      whether a consumer's checkpoint can be used
error_messages  what Spark, Delta and Java say, as one sentence
"""
