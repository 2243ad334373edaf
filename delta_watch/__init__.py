"""Watch how far streams are behind the Delta tables that they read, from outside: no job changes, no Spark is needed.

offsets, commits     parse the files of a checkpoint and of a table's log
store                reads files from a local disk or an object store
checkpoint, table    what a checkpoint and a log say: the last batch; the head, the id, the commits
backlog              what lies between a position and the head
lags                 from the checkpoints of a table's consumers to their backlogs
discovery            finds the checkpoints that match patterns
watcher              finds the lags of all tables, round by round; `threads` read disks, which may hang
exporter             serves the results to Prometheus; `once` shows them to people
config               reads the configuration of the command `delta-watch`
"""
