"""The books of a worker: which verdict a tree gets when news of it cross."""

from __future__ import annotations

from random import Random

from rainband.acker.ledger import Pending, Tree
from rainband.worker.books import Books
from rainband.worker.emit import SpoutEmitter
from rainband.worker.routes import Agenda, Gate
from rainband.worker.spouts import FAILED, SpoutTask

SPOUT = 1


def books_of_one_spout() -> tuple[Books, SpoutTask]:
    agenda = Agenda(1, Random(1))
    emitter = SpoutEmitter("spout", SPOUT, {}, Gate(), agenda, frozenset(), Pending(0, 1, 0))
    spout = SpoutTask(SPOUT, lambda: 0.0, emitter, lambda: None, lambda m: None, lambda m, reason: None, 0.001)
    books = Books(agenda, [SPOUT], [])
    books.spouts[SPOUT] = spout
    return books, spout


def test_a_tree_that_failed_here_is_not_acked_by_the_last_report_from_elsewhere() -> None:
    books, spout = books_of_one_spout()
    tree: Tree | None = spout.emitter.begin("row")
    assert tree is not None
    tree.edges ^= 77
    books.agenda.fail(tree)  # as a ManualBolt does in tick, after the pass has settled what it could
    books.agenda.release(tree)
    books.report(int(tree.root), 77)
    books.settle()
    assert list(spout.done) == []
    assert list(spout.undone) == [("row", FAILED)]


def test_a_tree_lets_go_of_its_message_id_with_the_verdict() -> None:
    books, spout = books_of_one_spout()
    for done in (True, False):
        tree: Tree | None = spout.emitter.begin("row")
        assert tree is not None
        books.finish(tree, done)
        assert tree.message_id is None
    assert (list(spout.done), list(spout.undone)) == (["row"], [("row", FAILED)])
