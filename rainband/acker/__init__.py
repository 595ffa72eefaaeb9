"""acker: is a tuple tree done?

Theory of operation. Every tracked root has an id and a home acker. Edges of its tree that stay inside a worker are
*counted* on a shared `Tree` object (`count`); edges that cross workers carry a random 63-bit id and are *XORed*
(Storm's acker, by Nathan Marz): each id enters the home's book twice, once from the sender and once from the receiver,
so the book is zero exactly when nothing is on its way (up to a chance of 2**-63 per report).

A worker sees a foreign root as a proxy `Tree`: it counts the tuples that arrived, XORs what arrived and what left,
and reports one value when the count falls to zero. So reports are folded per root and per batch by construction.

Invariants
- A tree is done only when its init is known, its count is zero at home, and the XOR of all reports is zero.
- Reports may come in any order, even before the init. A repeated init is ignored: it would XOR itself away.
- A report for another incarnation of the acker is dropped by comparing ids.
- Timeout verdicts come from the spout's `Pending` table alone (T..1.1T); a `Ledger` only forgets, at 3T.

`Pending` is the book of the roots of this worker's own spouts, `Ledger` the book of a separate `__acker` task.
Callers: worker/ (emit, tasks, transfer).
"""
