"""Exported files in their runtimes, each in its own process, because a bad file may end it."""
