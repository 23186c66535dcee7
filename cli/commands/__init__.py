"""One module per subcommand; each defines `command` and imports its room only when it runs."""
