"""How do bytes travel? Values, links between workers, requests to Nimbus, the channel between supervisor and worker.

Layers, each knowing only those above it in this list:

    values    rows of tuples as bytes: what comes out is what went in
    frames    the bytes of one frame on the wire
    link      numbering, receipts, repeats, bounds between this process and one peer; pure
    links     all links of a worker, and who is behind each address; pure
    keys      CURVE keys and who is let in
    sockets   how every ZeroMQ socket is made
    network   frames over ZeroMQ or in memory
    rpc       typed requests to Nimbus and their answers
    control   the messages between a supervisor and its workers

Invariants. Between the same two incarnations every message arrives exactly once and, within its kind, in order, as
long as both live; when one dies the other is handed the roots of all it cannot know to have arrived. Whatever a peer
sends that breaks the protocol is dropped and counted: no exception of it leaves this room but WireError. Every queue
and every map keyed by what others send is bounded. This room is the only home of `zmq`; nothing here knows what a
bolt is.
"""
