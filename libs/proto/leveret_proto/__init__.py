"""Leveret's contracts: messages, manifest, capabilities and topology. Pure: no sockets, no clock, no database."""
