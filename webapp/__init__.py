"""The web process: pages, API and sockets around an engine of `worker`."""

import worker  # noqa: F401 # before the libraries, so that they are loaded lean
