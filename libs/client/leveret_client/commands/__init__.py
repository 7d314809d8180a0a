"""The subcommands of `leveret`, one file for each or for a few that belong together."""
