"""What goes wrong with images, said so that an operator can act on it."""


class ImageError(Exception):
    """An image can't be described, made, found or trusted; the message says which, why and what to do."""
