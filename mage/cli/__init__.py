"""The command line: one file per command, which calls the library and prints the result."""
