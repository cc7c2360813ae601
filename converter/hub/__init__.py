"""The Hugging Face Hub as a source: what is an id, which files of a repository are fetched, and headers read by range."""
