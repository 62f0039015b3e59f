"""What a node remembers: the stores, and above their tables the replica, which keeps the invariants.

The header of an entry stays for good.  Its payload may not be here, and a document may not be shown; the words for it:

    lacking      a payload that stayed away, and is asked for where it is wanted (`meshsync.core.bare`)
    superseded   one that no document is made of any more (`meshsync.store.contributing`).  It has a mark where a peer
                 said so and left it out
    in doubt     the same, as long as the peer may have said so too early (`meshsync.core.doubts`)
    let go       a superseded one that was here, and that this node dropped as its owner wants less of the past
                 (`meshsync.store.retaining`).  It has a mark, too
    unwanted     one that is here, of documents outside of the part that is wanted (`meshsync.store.unwanted`).  Once
                 dropped it is lacking, and nothing tells it from one that never came
    husk         what is left in the row of a document of which nothing unwanted stayed (`meshsync.store.husks`)
    expired      a document that is not shown though all of it is here (`meshsync.store.expiries`)
    damaged      what the disk gives back other than it was written (`meshsync.store.damage`)
    lost         a document whose row, or what it was merged from, is damaged (`LOST_STATE`)
"""
