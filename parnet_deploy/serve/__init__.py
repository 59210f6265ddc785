"""A deployment over the network: the Open Inference Protocol v2 by REST and gRPC.

Rooms, each importing only from those below it:

    server           one process: sockets, signals, drain        ray         the same on Ray Serve
    rest, rpc        thin shells: Starlette, grpc.aio            page        what a browser shows
    service          what is asked of the models, whatever the wire it came over
    hosting          a name, and the deployments that answer to it   metrics, statistics
    scheduling       bounded queue, batches, deadlines           model       a deployment, opened
    protocol         the codec: bytes and messages <-> requests; no sockets, no threads
"""
