"""One file per tower family: its config's fields, its parts and their names."""
