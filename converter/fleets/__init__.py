"""Many checkpoints: a list, a ledger that runs continue from, and processes that nothing of a checkpoint outlives."""
