"""Stores streamed output and artifacts, proves it complete, serves it over HTTP."""
