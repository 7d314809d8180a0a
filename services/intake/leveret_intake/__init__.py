"""Intake: manifests in. It judges each submission, gives it a number, stores that, and hands it on."""
