"""Who may ask: where the server listens, the token, TLS, and what one client may take up."""
