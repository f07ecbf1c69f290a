"""The command line: one module a group of commands, their shared options, and what they print."""
