"""What the four scripts share, and what you carry to your own tables.

session   a Spark session that speaks Delta
places    where the table and the checkpoint live
visits    the table of the tutorial
versions  the last version written and the last version read
gauges    publish a version to the Pushgateway
errors    turn what goes wrong into one sentence
cli       how a script ends
"""
