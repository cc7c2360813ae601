"""Names as data: one TOML file per tower family, and `dual_encoder.toml` with the scopes around them.

No code lives here.
"""
