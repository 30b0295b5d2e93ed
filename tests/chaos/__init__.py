"""The engine under fire: real workers, brokers and databases are killed under load, and an auditor looks at what is left.

Four parts that do not know each other's secrets:

generator   what is asked of the desk: jobs, when, with which cancels and repeats. A seed gives the same plan again.
nemesis     what is done to it: SIGKILL, SIGSTOP, SIGTERM, SIGHUP, brokers and databases that crash. Each strike is noted.
ledger      what the jobs really did: one line a step, appended to a file outside of the database, by the jobs themselves.
auditor     reads only database, events and ledger, never logs: the invariants, and the figures.

`site` starts and stops the processes. `./m test tests/chaos` runs the short sizes, `./m chaos` the full ones;
`CHAOS_SEED=7` replays a plan and its strikes (the machine's own timing stays its own).
"""
