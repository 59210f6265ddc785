"""What a browser shows at /: one page, a client of the public protocol and nothing more."""
