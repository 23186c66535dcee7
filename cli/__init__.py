"""The `edge` command: one thin module per subcommand, parsing and printing only."""
