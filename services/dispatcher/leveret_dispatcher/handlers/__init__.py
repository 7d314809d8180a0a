"""One file for each queue that the dispatcher consumes."""
