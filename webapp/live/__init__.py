"""Live without reloading: what a page shows is watched, and what changed is rendered once and sent to everyone who sees it.

A page tells its socket which fragments it shows, as pairs of key and revision (`watch`). A commit anywhere names what it
changed (`worker.live`); the `feed` re-reads that once per process and tick, `fragments` renders it once per role, and
the `hub` sends it. First paint, reconnect, overflow and resume are one path: the page sends its pairs again.
"""
