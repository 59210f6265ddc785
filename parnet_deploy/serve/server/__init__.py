"""A process, or a part of one, that listens: sockets, signals, drain."""
