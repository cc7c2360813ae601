"""One file per family of models: how its towers meet."""
