"""Buckets as sources and targets: headers by range, files by parts, and an upload whose last object is the manifest."""
