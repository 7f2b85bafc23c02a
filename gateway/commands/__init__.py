"""What the ``antiprompt`` command can do, one file for each group of commands; ``gateway.cli`` puts them together."""
