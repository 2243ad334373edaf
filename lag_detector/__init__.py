"""What the four scripts share, and what you carry to your own tables.

versions   the last version written, the last version a stream has read, and when each was committed
gauges     publish a version to the Pushgateway
listener   publish while a streaming query runs
follow     keep a query running, and stop it between two batches
retire     remove a consumer's gauges
session    a Spark session that speaks Delta
startup    what makes a short run start fast
setup      fetch Delta's jars, make the class archive
places     where the table and the checkpoints live
consumers  which consumer we are
visits     the table of the tutorial
errors     the error that a reader can mend
sentences  turn what Spark, Delta and Java say into one sentence
cli        how a script ends
java       check that Spark can run on this Java
"""
