"""What every service needs around its core: configuration, broker, database, logging, signals, readiness."""
