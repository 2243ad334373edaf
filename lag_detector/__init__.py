"""What the four scripts share, and what you carry to your own tables.

session   a Spark session that speaks Delta
visits    the table of the tutorial, and where it lives
versions  the last version written and the last version read
gauges    publish a version to the Pushgateway
errors    turn what goes wrong into one sentence
"""
