"""Watch the lag from outside, by plain files: no job changes, and neither Spark nor a Pushgateway is needed.

checkpoint    where a query will continue, from the files in its checkpoint
log           which files a commit adds, from the table's log
backlog       what lies between the two
query, table  what is known of a query and a table: nothing is read twice
store         reads files from a local disk or an object store
watcher       looks at everything, round by round, with `jobs` that may hang
exporter      serves the results to Prometheus; `once` prints them for people
config        reads the configuration of the command, `python -m lag_detector.watch`
"""
