"""The `edge` command line: argument parsing and display."""
