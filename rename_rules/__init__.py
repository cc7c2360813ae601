"""The renaming rules, as data: one TOML file per tower family and ``dual_encoder.toml`` for what they share."""
