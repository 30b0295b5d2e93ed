"""A job's life without processes: rules over a model in memory, a virtual clock, and steps drawn from a seed.

model   what a desk must do with its jobs, as plainly as it can be said; the oracle
world   workers, ghosts, doorbells and people around it, which do everything in any order: a seed gives a trace
checks  what must hold after every step and at the end (the invariants I2 to I7 of a queue that loses nothing)
replay  the same trace through the real actions on a real database, compared with the model after each step
"""
