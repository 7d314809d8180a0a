"""Commands over `leveret.commands`: `router` takes them and answers, one file a family does what is asked."""
