"""The fixtures of every ring; see tests/fixtures.py."""

from tests.fixtures import *  # noqa: F403 # fixtures and hooks are found by name
