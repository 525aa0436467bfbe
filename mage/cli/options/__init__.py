"""What commands can be asked for: one file per command, a dataclass each, and nothing that takes time to import."""
