"""A collection as a program uses it: reading, writing, and following what changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import trio

from meshsync.core.entry import DELETE, PATCH, PUT, Operation
from meshsync.core.hlc import to_datetime
from meshsync.core.limits import INT_MAX
from meshsync.core.naming import check_named_document
from meshsync.core.ordering import Order
from meshsync.core.query import Query
from meshsync.documents import Change, Document, Index, place_after
from meshsync.errors import NotInPartError, StoreError
from meshsync.following import cursor_now, follow
from meshsync.ids import CollectionId, EndpointId, EntryId
from meshsync.moments import milliseconds_of, time_of
from meshsync.notifier import Notifier
from meshsync.past.conflicts import Conflict, conflicts
from meshsync.past.history import PastWrite, history
from meshsync.past.origins import Why, why
from meshsync.past.outside import Outside, look_outside
from meshsync.past.snapshots import Snapshot, take_snapshot
from meshsync.store.drafts import MergedDocument
from meshsync.store.listing import After, Listing
from meshsync.store.past import Past
from meshsync.store.replica import Applied, Replica
from meshsync.store.rows import DocumentRow
from meshsync.writes import Batch, Expectation, Expires, expect, expiry_ms, without_id


class Collection:
    """One collection of a node.  Made by `Node.collection`."""

    def __init__(
        self,
        replica: Replica,
        stored: Callable[[Replica, Applied], None],
        store_failed: Callable[[StoreError], None],
        watcher: Notifier,
        wall_ms: Callable[[], int],
        *,
        wait_durable: bool,
        indexes_changed: Notifier,
    ) -> None:
        self._replica = replica
        self._past = Past(replica)
        self._stored = stored
        self._store_failed = store_failed
        self._watcher = watcher
        self._wall_ms = wall_ms
        self._wait_durable = wait_durable
        self._indexes_changed = indexes_changed

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    @property
    def name(self) -> str:
        """Its name."""
        return self._replica.name

    @property
    def id(self) -> CollectionId:
        """Its id."""
        return self._replica.id

    def __len__(self) -> int:
        """How many documents there are."""
        return self._replica.document_count()

    @property
    def held(self) -> int:
        """How many documents are at this node, those outside of the part that it wants included."""
        return self._replica.tables.counts()[1] - self._replica.expiries.due()

    # Writing

    async def put(
        self,
        id: str,
        body: Mapping[str, Any],
        *,
        expires: Expires | None = None,
        if_entry: EntryId | str | None = None,
        if_absent: bool = False,
    ) -> EntryId:
        """Write a whole document.  See `write`.

        `expires`: from when on no node shows it any more (`Document.expires`); None: never.
        `if_entry`: only if this is the document's revision (8 digits or more); `if_absent`: only if it does not exist.
        MovedOnError: it is not so, and nothing was written.  Nothing at this node comes between the look and the
        write; somebody at another node may write at the same time, and that is a conflict as ever.
        """
        operation = Operation(PUT, id, without_id(id, body), self.expiry_ms(expires))
        return await self.write([operation], expect(id, if_entry, if_absent=if_absent))

    async def patch(
        self,
        id: str,
        body: Mapping[str, Any],
        *,
        expires: Expires | None = None,
        if_entry: EntryId | str | None = None,
        if_absent: bool = False,
    ) -> EntryId:
        """Set some fields of a document; None removes one.  The rest as `put`, but that `expires` None changes
        nothing; "never" lets the document stay.  Of one that has expired nothing comes back: it is written anew.

        Where this node holds another part of the collection, that sets fields of a document which it does not see.
        """
        operation = Operation(PATCH, id, without_id(id, body), self.expiry_ms(expires))
        return await self.write([operation], expect(id, if_entry, if_absent=if_absent))

    def expiry_ms(self, expires: Expires | None) -> int | None:
        """`Operation.expires_ms`.  LocalError: it is no time.  PassedError: it is none to come."""
        return expiry_ms(expires, self._present_ms())

    def _present_ms(self) -> int:
        return self._replica.expiries.present_ms(self._wall_ms())

    async def delete(self, id: str, *, if_entry: EntryId | str | None = None) -> EntryId | None:
        """Delete a document; None where there is no such document.  The rest as `put`.

        NotInPartError: this node holds another part of the collection, and cannot know whether there is one.
        """
        if if_entry is None and self._is_absent(id):
            await trio.lowlevel.checkpoint()
            return None
        return await self.write([Operation(DELETE, id)], expect(id, if_entry, if_absent=False))

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """Several operations as one entry, all or nothing on every node, written at the end of the `async with` block.

        An exception inside of the block writes nothing, and so does cancelling it.  The end is `write`: it raises
        what that raises, and then nothing was written either.  What is read meanwhile is the collection as it stands.
        """
        batch = Batch(self._present_ms)
        try:
            yield batch
        finally:
            operations, expectations = batch.close()
        absent = {one.id for one in operations if one.kind == DELETE and self._is_absent(one.id)}
        operations = [one for one in operations if one.id not in absent]
        self._require(expectations)
        if operations:
            batch.entry = self.write_soon(operations)
        await self.wait_durable()

    async def write(self, operations: Sequence[Operation], expectations: Sequence[Expectation] = ()) -> EntryId:
        """Write one entry, all of it or nothing, and return when it is as durable as the node was configured.

        The write is done before the first wait: cancelling stops only the waiting for the disk.  LocalError,
        RefusedError: the operations cannot be written, and nothing was.  StoreError: the disk does not take them.
        """
        self._require(expectations)
        entry = self.write_soon(operations)
        await self.wait_durable()
        return entry

    def _is_absent(self, id: str) -> bool:
        """Whether a document does not exist.  NotInPartError: nobody here can know."""
        if self._row(id) is not None:
            return False
        outside = self.outside(id)
        if outside is not None and outside.may_exist:
            raise NotInPartError(f"nothing was deleted: {outside}")
        return True

    def _require(self, expectations: Sequence[Expectation]) -> None:
        for expectation in expectations:
            document = self.get(expectation.id)
            outside = self.outside(expectation.id) if document is None else None
            expectation.check(self.name, document, outside)

    def write_soon(self, operations: Sequence[Operation]) -> EntryId:
        """`write` without its wait: for many writes in a row, before one `wait_durable` for all of them."""
        now_ms = self._wall_ms()
        try:
            applied, entry = self._replica.append(self._replica.expiries.as_meant(operations, now_ms), now_ms)
        except StoreError as error:
            self._store_failed(error)
            raise
        self._stored(self._replica, applied)
        return entry

    async def wait_durable(self) -> None:
        """Return when what was written is as durable as the node was configured.  Cancelling stops the waiting only.

        StoreError: the disk does not take it.
        """
        if self._wait_durable:
            await self._replica.store.synced()
        else:
            await trio.lowlevel.checkpoint()

    # Reading

    def get(self, id: str) -> Document | None:
        """A document, or None."""
        row = self._row(id)
        if row is None:
            return None
        return self._document(row, self._replica.merger.read(row))

    def documents(
        self,
        query: Query | str | None = None,
        *,
        order: str | None = None,
        after: Document | str | None = None,
        limit: int | None = None,
    ) -> Iterator[Document]:
        """The documents that match, by id.  Read in pages, so writes in between are seen; cheap to abandon.

        `query`: a Query, or the text of one, as everywhere that one is taken; None: all documents.
        `order`: by a field, or -FIELD for descending, and then by id, those without the field last (the order of
        values: meshsync/core/ordering.py).  `after`: the last document of the page before; where there is no order
        its id will do.  LocalError: too many match to be sorted without an index of that field.
        """
        merger = self._replica.merger
        for (row, payload), _ in self.select(query, order=order, after=place_after(after, order), limit=limit):
            yield self._document(row, merger.read(row, payload))

    def bodies(self, query: Query | str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and fields of the documents that match, by id: what listings need, and cheaper than `documents`."""
        for (row, _), body in self.select(query):
            yield row.id, body

    def select(
        self,
        query: Query | str | None = None,
        *,
        order: str | None = None,
        after: After | None = None,
        limit: int | None = None,
    ) -> Listing:
        """A run of a query in steps, for whoever shares an event loop with others, and what it looked at."""
        by = None if order is None else Order.parse(order)
        return Listing(self._replica, Query.of(query), order=by, after=after, limit=limit)

    # Indexes

    def indexes(self) -> list[Index]:
        """The declared indexes, in the order of their declaration."""
        tables = self._replica.tables
        return [
            Index(row.path, row.state == "ready", tables.keys.count(row.number, b"", b"\xff", INT_MAX))
            for row in self._replica.indexes.declared()
        ]

    async def add_index(self, field: str) -> bool:
        """Declare an index of a field, at this node, for good; False where there is one already.

        It is built in the background, and serves queries when it is ready; see `wait_indexed`.  Done before the first
        wait: cancelling stops only the waiting for the disk.  LocalError: the field can have none, or there are too
        many.
        """
        is_new = self._replica.indexes.add(field)
        self._indexes_changed.notify()
        await self.wait_durable()
        return is_new

    async def remove_index(self, field: str) -> bool:
        """Give up an index; False where there is none.  Where the configuration names it, the next start declares it
        again.  Cancelling: as `add_index`.  LocalError: that is no field.
        """
        is_known = self._replica.indexes.remove(field)
        self._indexes_changed.notify()
        await self.wait_durable()
        return is_known

    async def wait_indexed(self) -> None:
        """Wait until all declared indexes are ready.  Cancelling stops the waiting only."""
        await self._indexes_changed.wait_until(
            lambda: all(row.state != "building" for row in self._replica.indexes.rows)
        )

    def _shows(self, id: str) -> bool:
        """Whether a document is in the part of the collection that this node wants, as far as is known here."""
        interest = self._replica.interest
        return interest is None or id in interest

    def _row(self, id: str) -> DocumentRow | None:
        check_named_document(id)
        row = self._replica.tables.documents([id]).get(id)
        if row is None or not row.live or not self._shows(id):
            return None
        return None if self._replica.expiries.has_expired(row.expires_ms, self._wall_ms()) else row

    def _document(self, row: DocumentRow, merged: MergedDocument) -> Document:
        stamp = merged.stamp
        author = EndpointId(stamp.author)
        revision = merged.entry
        if row.state is not None and (last := self._replica.tables.entry(row.arrival)) is not None:
            revision = EntryId(last.id)
        time, expires = to_datetime(stamp.hlc), None if merged.expires_ms is None else time_of(merged.expires_ms)
        return Document(row.id, merged.body or {}, author, time, merged.entry, row.conflict, revision, expires)

    # Looking into documents

    def outside(self, id: str) -> Outside | None:
        """What is known of a document that this node does not show because it holds another part of the collection, or
        because a payload that it wants has not come.

        None where it shows it, or knows that it does not exist.  DamagedError: a write cannot be read.
        """
        interest = self._replica.interest
        if interest is None:
            is_here = self._replica.complete or self._row(id) is not None
            return None if is_here else look_outside(self._past, self.name, None, id)
        return None if id in interest else look_outside(self._past, self.name, interest, id)

    def was_written(self, id: str) -> bool:
        """Whether the document was ever written, deleted or not."""
        return self._past.row(id) is not None

    def expired_at(self, id: str) -> datetime | None:
        """When a document expired that is not shown because of that; None of all others."""
        ms = None if (row := self._past.row(id)) is None else row.expires_ms
        return time_of(ms) if ms is not None and self._replica.expiries.has_expired(ms, self._wall_ms()) else None

    def history(self, id: str, *, diff: bool = False) -> Iterator[PastWrite]:
        """Every write to a document, deleted or not, in the order that decides what it shows; none for an unknown id.

        `diff`: with what each changed.  Read one by one, so it may be of any length; cheap to abandon.
        DamagedError: a write cannot be read; `meshsync verify --repair` fetches it from a peer.
        """
        return history(self._past, id, diff=diff)

    def why(self, id: str, field: str | None = None) -> Why | None:
        """Where the fields of a document, or one of them, come from, and what was overridden; None where it was
        never written.  DamagedError: as `history`.
        """
        return why(self._past, id, field)

    def conflicts(self) -> Iterator[Conflict]:
        """The documents with writes that did not know of each other and that no later one has seen together, by id.

        Read in pages; cheap to abandon.  DamagedError: as `history`.
        """
        return conflicts(self._past)

    async def snapshot(self, at: datetime | str) -> Snapshot:
        """The documents as they were: `at` is a time (with its zone), or an entry, by 8 digits of its id or more.

        At a time all entries up to it count, wherever they were written, and whenever they arrived here; at an entry,
        it and all that its author had seen.  Where this node holds a part of the collection, those documents are
        listed that were in it.  LocalError: there is no such entry.  Cancelling loses nothing.
        """
        interest = self._replica.interest
        return await take_snapshot(self._past, at, None if interest is None else interest.query)

    async def restore(self, id: str, at: datetime | str) -> EntryId | None:
        """Write a document as it was, as a new entry; None where it did not exist then.  See `snapshot`, `write`.

        It expires as it did then; if that has passed, never.
        """
        document = await (await self.snapshot(at)).get(id)
        if document is None:
            return None
        expires = document.expires
        is_to_come = expires is not None and milliseconds_of(expires) > self._present_ms()
        return await self.put(id, document.body, expires=expires if is_to_come else None)

    # Following

    def cursor(self) -> str:
        """Where `changes` begins without `since`: after all that is stored."""
        return cursor_now(self._replica)

    def changes(self, query: Query | str | None = None, since: str | None = None) -> AsyncGenerator[Change, None]:
        """Every operation that is stored, in the order of its arrival, those to come included.

        `since`: the cursor of the last change that was seen, from this or an earlier process, to go on without
        loss or repeat; "0" for the beginning; None for the moment of this call.  With a query, the operations after
        which a document matches, and `removed` or `delete` where it matched before and does not any more.  What is
        told is the same whenever it is read, and read from the store: a slow reader costs nothing.  CursorLostError:
        the cursor is not one of this store, or a power cut took some of what was told before it; forget what was told,
        and begin anew.  LocalError: it is no cursor.  DamagedError: a write cannot be read.  Cancelling loses nothing;
        go on from the last cursor.

        Where this node has a part of the collection: the documents that entered it (`put`), changed in it (`put` or
        `patch`, as the last write to them was) or left it (`removed`, `delete`); of each the present state, once, so
        whoever is behind is told less.  A `removed` may be told twice, or of a document that was not told, where
        nobody can know any more.  When the node wants another part, or all, or a part of what it had all of, the
        changes go on, with what that makes enter and leave.
        """
        wanted = None if query is None else Query.of(query)
        return follow(self._replica, self._watcher, wanted, self.cursor() if since is None else since)
