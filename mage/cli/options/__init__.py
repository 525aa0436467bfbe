"""Options of the commands: one file and one dataclass per command, without slow imports."""
