"""The same service and codec on Ray Serve: replicas on several machines behind Ray's proxies.

A request comes to a proxy of Ray's, of which each node has one, and goes on as bytes to a replica
on any node. Each replica is a process with an ``InferenceService`` of its own and both shells.
"""
