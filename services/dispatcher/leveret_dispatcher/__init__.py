"""The only writer of job state: routes, leases, retries, and publishes events."""
