"""OUT: staging and renaming, the small files, the manifest, the proof."""
