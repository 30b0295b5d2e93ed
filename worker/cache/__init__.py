"""Cache: what may be lost, shared by all processes of a desk where there is a Redis. `port` says what is promised."""
