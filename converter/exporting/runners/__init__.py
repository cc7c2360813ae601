"""Exported files in the runtimes that will run them, each in a process of its own: a bad file may end it."""
