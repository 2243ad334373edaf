"""Watch how far streams are behind the Delta tables that they read, from outside: no job changes, no Spark is needed.

offsets, commits     parse the files of a checkpoint and of a table's log
backlog              what lies between a position and the head
store                reads files from a local disk or an object store
checkpoint, table    read each file once
watcher              finds the lags of all consumers, round by round; `workers` call what may hang
exporter             serves the results to Prometheus; `once` shows them to people
config               reads the configuration of the command `delta-watch`
"""
