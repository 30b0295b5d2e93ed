"""Live: tells every web process that something changed, so that its browsers re-read it. `port` says what is promised."""
