"""From a source to a folder that appears whole: engine, plan, writing, and what reads a checkpoint for a model."""
