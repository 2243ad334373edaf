"""Watch how far streams are behind the Delta tables that they read, from outside: no job changes, no Spark is needed.

offsets, commits     parse the files of a checkpoint and of a table's log
store                reads files from a local disk or an object store
checkpoint, table    what a checkpoint and a log say: the last batch; the head, the metadata, the commits
snapshots, parquet   the files of a table at a version, also where its log starts at a Parquet checkpoint
backlog              what lies between a position and the head
lags                 from the checkpoints of a table's consumers to their backlogs
discovery, lake      find checkpoints that match patterns, and all tables and checkpoints in a lake
catalog              asks a catalog where its table is, and which of its commits are not in the log yet
inventory            which tables and consumers there are
watcher              finds the lags of all of them, round by round
calls, threads       run what reads a folder: a disk may hang
summary              says what is known of each consumer; `once` prints it, `page` makes a page of it
exporter             serves the page, and the metrics for Prometheus
config               reads the configuration of the command `delta-watch`
"""
