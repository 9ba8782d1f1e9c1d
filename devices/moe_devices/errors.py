"""The error of this floor."""


class DeviceError(OSError):
    """A device that does not exist, is not there, or cannot be driven; says what is there."""
