"""A store in one SQLite file: durable and fast, on SQLite in WAL mode through apsw, which only this package imports.

Who does what:

    store       SqliteStore: what a node remembers, above one writing connection on the event loop's thread
    tables      the tables of one collection
    database    the writing connection: statements, transactions, and errors that say what to do
    syncer      a thread that syncs the write-ahead log, and answers whoever waits for that
    checkpointer  a thread that moves the write-ahead log into the database file
    opening     what is checked and made before a file becomes a store
    migrations  the versions of the schema (schema.sql, collection.sql)
    copies      backups, and the checks of `verify`
"""

from meshsync.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
