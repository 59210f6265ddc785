"""The codec of the Open Inference Protocol v2: bytes and messages to requests, and back."""
