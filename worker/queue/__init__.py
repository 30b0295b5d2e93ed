"""How a job's doorbell gets from whoever enqueued it to a worker with a free slot.

The job itself is a row. What travels here is only its id: a *doorbell* that may be lost, repeated, late or out of order
without changing what becomes of the job, because workers also look into the database. `lanes` are the pure rules, `port`
is what a transport promises, `nats`, `redis` and `memory` keep the promise, `broker` is Taskiq's face of it and
`receiver` turns doorbells and polls into running jobs.
"""
