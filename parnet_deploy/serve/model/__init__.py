"""A deployment, opened to be served: what it takes, what it gives, what is said of it."""
