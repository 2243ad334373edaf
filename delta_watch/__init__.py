"""Watch how far streams are behind the Delta tables that they read, from outside: no job changes, no Spark is needed.

checkpoint    where a query will continue, from the files in its checkpoint
log           which files a commit adds, from the table's log
backlog       what lies between the two
query, table  what is known of a query and a table: nothing is read twice
store         reads files from a local disk or an object store
watcher       looks at everything, round by round, with `jobs` that may hang
exporter      serves the results to Prometheus; `once` prints them for people
config        reads the configuration of the command `delta-watch`
"""
