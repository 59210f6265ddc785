"""REST: a thin ASGI app over the codec and the service, and the HTTP connection that guards it."""
