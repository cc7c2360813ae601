"""Operating system functions that not all systems have. Each module decides it once, and has the other way.

Linux is complete. macOS lacks ``/proc``, limits of memory and some calls; Windows also lacks fork, locks of folders,
reads at an offset, and renames or removes nothing that is open. ``tests/systems`` takes all of that away.
"""
