"""What `leveret demo` needs besides the stack and the client: tools, a guest image, scdoc's source, a summary."""
