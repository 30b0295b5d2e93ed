"""What the `m` command can do, a file per noun. Each imports what it needs when it runs, so that `m` starts at once."""
