"""worker: run tasks, move tuples.

Theory of operation. `Worker.step(now)` is one pass over everything the process has to do (worker.py). Tasks run
cooperatively on that one thread: no queue between threads, no lock. `routes.py` says where tuples can go and who must
wait; `emit.py` takes them from the user's call to inboxes and outboxes; `tasks.py` and `spouts.py` have the loops that
call user code; `books.py` settles trees; `transfer.py` turns outboxes into messages of the links and back; `wiring.py`
joins it all and changes it when the assignment does; `life.py` calls open, prepare, close ...; `side.py`, `sides.py`
and `lanes.py` run async and blocking components beside the loop; `window.py`, `reliable.py`, `stalls.py`,
`reports.py` and `watch.py` (what is noticed: calls that do not come back, peers that do not answer) decide, purely.
`process.py` is the shell around it that makes an operating-system process.

Invariants
- An executor runs only while each of its targets has room; acks, credit and control need none, so a DAG cannot
  deadlock. Edges on a cycle take no credit.
- A tuple is handed on by reference within the worker and never encoded.
- Nothing is done per tuple that can be done per batch, nothing per batch that can be done per link.
- What a revoked worker or placement sends is not executed: its roots fail at once.

Called by process.py, local/ and the tests, which step it by hand.
"""
