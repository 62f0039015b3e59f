-- The tables of one collection; {n} is its number.  One set of tables each, so that "what does this peer still
-- need" is a scan of one range, and dropping a collection leaves the others alone.

CREATE TABLE branches_{n} (
    number INTEGER PRIMARY KEY,
    author BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    base INTEGER,
    first_seq INTEGER NOT NULL,
    covered_seq INTEGER NOT NULL,
    crc INTEGER NOT NULL         -- meshsync/store/checksums.py, as everywhere below
) STRICT;

-- The payload comes last: a long one goes to overflow pages, and the columns behind it would have to be read
-- through all of them.  head_crc covers the columns before it, crc goes on from there over payload or bare.
CREATE TABLE entries_{n} (
    arrival INTEGER PRIMARY KEY,
    branch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id BLOB NOT NULL,
    hlc INTEGER NOT NULL,
    height INTEGER NOT NULL,
    parents BLOB,
    seal BLOB,
    head_crc INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    bare BLOB,
    payload BLOB
) STRICT;
CREATE UNIQUE INDEX entries_{n}_seq ON entries_{n} (branch, seq);
CREATE INDEX entries_{n}_merges ON entries_{n} (branch, seq) WHERE parents IS NOT NULL;
-- Not those with a mark behind the third item, which lack nothing (meshsync/core/bare.py).
CREATE INDEX entries_{n}_bare ON entries_{n} (arrival) WHERE bare IS NOT NULL AND substr(bare, 1, 1) <> x'84';
CREATE INDEX entries_{n}_marked ON entries_{n} (arrival) WHERE bare IS NOT NULL AND substr(bare, 1, 1) = x'84';

CREATE TABLE documents_{n} (
    id TEXT PRIMARY KEY,      -- BINARY collation: the bytewise order of UTF-8
    arrival INTEGER NOT NULL,
    op INTEGER NOT NULL,
    live INTEGER NOT NULL,
    conflict INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    state BLOB,
    expires INTEGER           -- milliseconds since the Unix epoch, NULL for never
) STRICT, WITHOUT ROWID;

CREATE INDEX documents_{n}_contested ON documents_{n} (id) WHERE conflict;
CREATE INDEX documents_{n}_expiring ON documents_{n} (expires, id) WHERE expires IS NOT NULL;

-- Which entries touch a document, by its tag.  Of a document without state, the entry that its row points at may be
-- missing: most documents are written once, and take no row here.  So may entries that lack their payloads, from
-- collections.unwritten_from on.
CREATE TABLE touches_{n} (
    tag BLOB NOT NULL,
    hlc INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    PRIMARY KEY (tag, hlc, arrival)
) STRICT, WITHOUT ROWID;

-- Of each document the latest entry that has a mark in place of its payload, by its tag.
CREATE TABLE gone_{n} (
    tag BLOB PRIMARY KEY,
    hlc INTEGER NOT NULL,
    arrival INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Entries whose payloads may have to be let go.
CREATE TABLE superseded_{n} (
    arrival INTEGER PRIMARY KEY
) STRICT;

-- The declared indexes, and the key of each live document in each of them (meshsync/store/keys.py).  By id, so that a
-- write need not know what the document was before; by key, to find it.
CREATE TABLE indexes_{n} (
    number INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    after TEXT NOT NULL
) STRICT;

CREATE TABLE keys_{n} (
    field INTEGER NOT NULL,   -- number of the index
    id TEXT NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (field, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_{n}_order ON keys_{n} (field, key, id);

-- What was told of the documents of a part to those who follow it (meshsync/store/changes.py).
CREATE TABLE changes_{n} (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    late INTEGER NOT NULL,
    stays BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX changes_{n}_order ON changes_{n} (number);

CREATE TABLE cursors_{n} (
    peer BLOB PRIMARY KEY,
    epoch BLOB NOT NULL,
    next_read INTEGER NOT NULL,
    next_confirm INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
