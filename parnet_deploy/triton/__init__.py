"""Hands a deployment to a Triton Inference Server, or to KServe: a model repository, a service."""
