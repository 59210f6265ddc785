"""Who made a deployment: Ed25519 keys, signing, and whom to trust. Needs the extra ``sign``."""
