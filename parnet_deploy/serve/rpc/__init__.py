"""gRPC: a thin asyncio server over the codec and the service."""
