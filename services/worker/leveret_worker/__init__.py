"""The worker: claims jobs, runs each in a fresh machine through the guest API, and sends back what happened."""
