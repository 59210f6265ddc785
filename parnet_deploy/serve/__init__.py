"""A deployment over the network: the Open Inference Protocol v2 by REST and gRPC.

Rooms, each importing only from those below it:

    ray          replicas on several machines, behind Ray's proxies
    server       a process that listens: sockets, signals, drain, hot swap
    rest, rpc    the two wires: ASGI under uvicorn, and grpc.aio
    service      what is asked of the models, whatever the wire: who answers, what is counted
    shells       what both wires do alike: ask, write down, trace
    scheduling   bounded queue, batches, deadlines          model      a deployment, opened
    protocol     the codec: bytes and messages <-> requests; no sockets, no threads
    security     who may ask, and how much of it            page       what a browser shows
"""
