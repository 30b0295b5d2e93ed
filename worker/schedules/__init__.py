"""Schedules: when which job starts by itself, and what became of every instant that was due.

`cron` and `zones` are the rule: which instants an expression means, as pure functions. `words` says it in a sentence,
`policy` decides what becomes of instants that are due, late or missed. `actions` is what people and programs do with a
schedule, `code` what workers' code does, `clock` what time does: each fire is one transaction that moves `next_fire_at`
on, records a ScheduleFire and inserts the job. Any number of clerks may run it at once; none of them leads.
"""
