"""meshsync: offline-first documents for a mesh of peers, over QUIC."""
