"""Whether an exported file is the model that it was made of: what is asked, what may differ, and what quantising cost."""
