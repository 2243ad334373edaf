"""A Spark session with Delta Lake that starts in seconds on this machine. It knows nothing of the tutorial.

session      open the session
launch       start Spark's Java, directly or by Spark's own launcher
java         find a Java that Spark runs on
archive      the archive from which Java starts faster: AppCDS or an AOT cache
jars         fetch Delta's jars once
tuning       settings for a script that runs for seconds
prepare      python -m fast_spark.prepare: fetch the jars, make the archive
failure      why Spark did not start, as one sentence
environment  every environment variable that this package reads
console      lines on standard error
errors       the exception
"""
