"""What goes wrong with machines."""


class MachineError(Exception):
    """A machine could not be started, or ended before its time; the message holds what QEMU or the guest said."""
