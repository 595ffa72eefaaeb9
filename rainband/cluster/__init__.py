"""cluster: what does the cluster remember, and who leads?

Theory of operation. Nimbus keeps the truth as a small map of keys to bytes behind one narrow interface, `Store`:
read everything, take the lead, write a batch of changes. Large things (code bundles) are not in it but in `Blobs`,
named by the SHA-256 of their content, and written before the row that names them.

Invariants
- A batch of changes is written whole and is on the disk when `write` returns; after a crash at any instant the
  state is the one before or the one after.
- `lead` starts a new epoch, larger than every earlier one. Every write names its epoch, and a write of an earlier
  epoch than the newest fails and changes nothing: a leader that was replaced cannot write late.
- `cluster_id` is drawn once, when the state is made, and never changes.
- A blob is visible under its name only when it is complete, correct and synced; it is checked again when it is read.
- Keys and values are untrusted when they are read: the interface returns bytes and decodes nothing.

Backends: `memory` (one process, tests), `sqlite` (one Nimbus, a file), `zookeeper` (several Nimbuses; `keeper` is its
connection, `campaign` its side of the election). `election` says who leads, and how long a leader may believe it.
`positions` is a store of its own, on the side of the workers: how far the spouts of this host have come.
Callers: nimbus/ (store, blobs, election), worker/ (positions), local/ (memory). The only room that opens SQLite files,
and the only one that knows kazoo.
"""
