"""The topology of `rainband demo`, written as a user would write it: `rainband` and the standard library, no more.

Word count of the standard library's own source. The counting bolts commit to SQLite files of their own and ack only
then, so a word that was acked is on disk; what is replayed after a kill may be counted again, never less. `truth.py`
is a script that knows nothing of rainband: it counts the same files in one loop and compares, word by word.
"""
