"""Peers on the local network: multicast DNS (RFC 6762) with service discovery (RFC 6763).

    discovery  the part in trio: one session of zeroconf after the other, and what they see
    station    the part in a thread of its own: zeroconf in asyncio, what is announced and asked
    heard      what others announce, bounded

Only station and heard import zeroconf.  What the thread learns reaches trio only through `TrioToken.run_sync_soon`, and
what trio wants of it only through `call_soon_threadsafe`.
"""
