"""The command line: each command a thin translation of arguments into a library call."""
