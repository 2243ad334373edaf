"""What the scripts print."""

CREATED = """\
+----------------------------+------------------------+
|name                        |tableFeatures           |
+----------------------------+------------------------+
|spark_catalog.default.visits|[appendOnly, invariants]|
+----------------------------+------------------------+

+----------------------+-----+
|key                   |value|
+----------------------+-----+
|delta.minReaderVersion|1    |
|delta.minWriterVersion|2    |
+----------------------+-----+

"""

VISITS = """\
+---------+----------------------+-------+------------+
|visit_id |event_time            |user_id|page        |
+---------+----------------------+-------+------------+
|visit 1-0|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 1-1|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 1-2|2024-07-01 12:00:00.84|user 1 |index.html  |
|visit 2-0|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 2-1|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 2-2|2024-07-01 14:00:00.84|user 2 |contact.html|
|visit 3-0|2024-07-01 15:00:00.84|user 3 |about.html  |
|visit 3-1|2024-07-01 15:00:00.84|user 3 |about.html  |
|visit 3-2|2024-07-01 15:00:00.84|user 3 |about.html  |
+---------+----------------------+-------+------------+

"""
