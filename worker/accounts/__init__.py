"""Who may look, who may act, who did what.

An `Actor` (`actor`) stands behind every change. `actions` are what may be done with people and tokens, `signing_in` is how
a session begins and ends, the set-up link included. `policy` holds the rules, pure: names, passwords, lifetimes, limits.
`throttle` counts guesses in the database before they are judged; `tickets` work once; `passwords` are argon2id hashes made
two at a time. `crypto` is all that M_SECRET_KEY is used for. `audit` writes an entry in the action's own transaction, and
seals the entries as a chain.
"""
