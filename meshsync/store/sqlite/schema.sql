-- What stands once in a store.  collection.sql has the tables of each collection.

-- The same in all versions: a copy that is made before a migration is marked in it.
CREATE TABLE store (          -- one row
    epoch BLOB NOT NULL,      -- 8 random bytes, renewed when a backup is opened
    backup INTEGER NOT NULL   -- 1: this file is a backup that no process has opened yet
) STRICT;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE peers (
    id BLOB PRIMARY KEY,
    trust TEXT NOT NULL,
    name TEXT NOT NULL,
    address TEXT NOT NULL,
    seen REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT, so that the number of a dropped collection never names another one's tables.
CREATE TABLE collections (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,       -- '' where it is not known
    live INTEGER NOT NULL,    -- live documents
    bare INTEGER NOT NULL,    -- entries that lack their payloads
    marked INTEGER NOT NULL,  -- entries that have a mark in place of them
    bytes INTEGER NOT NULL,   -- of the payloads
    unwritten_from INTEGER,   -- NULL, or the arrival from which on touches may be missing (late_touches.py)
    retained BLOB,            -- how far the past was looked through (meshsync/store/retaining.py)
    incarnation BLOB,         -- the last one that this store wrote under, NULL before the first
    writer BLOB               -- the boot id of the process that writes (x'' for an unknown one), NULL after a clean end
) STRICT;
