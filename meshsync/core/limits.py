"""Every bound in the system, in one place, the unit in each name.

LIMITS holds what a node may choose; what decides the validity of an entry is a constant of the protocol,
because two nodes that disagreed on it would diverge for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Constants of the protocol: part of validity, the same on every node.
PROTOCOL_VERSION = 1
ALPN = "meshsync/1"
PARENTS_MAX = 16
PAYLOAD_BYTES_MAX = 256 * 1024
OPERATIONS_MAX = 256
DOCUMENT_ID_BYTES_MAX = 512
COLLECTION_NAME_BYTES_MAX = 128
BODY_DEPTH_MAX = 16
SUMMARY_BYTES_MAX = 2048
SUMMARY_ADDRESSES_MAX = 8
SUMMARY_LINKS_MAX = 16
SUMMARY_MARKS_MAX = 24
SUMMARY_DIGEST_BYTES = 8
QUERY_BYTES_MAX = 16 * 1024
"""In CBOR, as peers are told it."""
MATCH_TAGS_MAX = 16_384
BOOKMARK_BYTES_MAX = 32
CURSOR_LIVES_MAX = 256
"""So many boots of the machine ago a reader may have got the cursor from which it goes on."""
SUMMARY_LASTS_SECONDS_MAX = 32 * 86400
INT_MIN = -(2**63)
INT_MAX = 2**63 - 1
EXPIRES_MS_MAX = 2**47 - 1
"""The latest time at which a document may expire: what the milliseconds of a stamp hold, in the year 6429."""


SORT_KEY_BYTES_MAX = 256
"""Of a string so many bytes decide where it is sorted."""


@dataclass(frozen=True)
class Limits:
    """The bounds that one node applies to itself and to its peers."""

    # Frames and messages
    frame_bytes_max: int = 2 * 1024 * 1024
    control_frame_bytes_max: int = 64 * 1024
    hello_bytes_max: int = 2048
    message_seconds_max: float = 30.0
    """From the first byte of a frame to its last, and as much longer as a slow link needs for it:"""
    message_bytes_per_second_min: float = 64.0
    """The share of something that is not urgent on a link of 10 kbit/s."""
    batch_bytes_soft: int = 128 * 1024
    batch_seconds: float = 1.0
    """A batch is stored whole or not at all, so on a slow path none is longer than this; but for so much:"""
    batch_bytes_min: int = 4 * 1024
    batch_entries_soft: int = 512
    batch_headers_soft: int = 2048
    """Entries, of which no more than `batch_entries_soft` carry a payload."""
    batch_entries_max: int = 4096
    batch_seals_max: int = 512
    open_tips_max: int = 20_000
    """In one message; the rest follows in others."""
    logs_max: int = 131_072
    """That a peer may name in one session."""
    locate_samples_max: int = 4096
    want_entries_max: int = 256
    past_in_vain_max: int = 1024
    """Superseded payloads in a row that a peer turns out not to have either, before it is asked for no more of them."""
    want_patience_seconds: float = 0.5
    """So long others have to send a payload, before a peer is asked that did not bring it up."""
    match_slice_documents: int = 64
    """Documents, or entries, that are looked at for a peer's query at a time: at most MATCH_TAGS_MAX names."""
    unwanted_seconds: float = 60.0
    """So long payloads stay that are not wanted, and at most twice as long."""
    receipt_seconds: float = 10.0
    """So long a peer that has everything has to ask for what it lacks after all, before it is asked for a receipt."""
    bookmark_entries: int = 4096
    """So many that are looked at for a peer's query, and name nothing, may have to be looked at once more."""
    part_indexed_entries: int = 256
    """So many go out to a peer that wants a part before an index is asked for all that it wants."""
    part_slice_documents: int = 256
    """Documents, or keys, that are looked at at a time where another part of a collection is wanted."""
    named_documents_max: int = 65_536
    """Documents that peers named and of which nothing is here yet."""
    doubtful_marks_max: int = 16_384
    """Payloads that are in doubt to be superseded, of each of which it is remembered what documents it touches."""
    seals_per_second_max: float = 2000.0
    answers_bytes_max: int = 8 * 1024 * 1024
    """What may wait to be sent on one stream before no more of the peer's questions are read."""
    answer_seconds_max: float = 30.0
    """How long a peer may leave a ping, or its own answers, lying."""
    unsaid_seconds_max: float = 5.0
    """How long a peer that does not say what it subscribes to counts as one that may be out of sync."""
    patience_round_trips: float = 60.0
    patience_seconds_max: float = 300.0
    """So long the peer's messages and answers may take on a slow link, see `patience_seconds`."""
    first_ping_seconds: float = 2.0
    ping_seconds: float = 300.0

    # Clocks
    clock_ahead_ms_max: int = 10 * 60 * 1000
    clock_set_back_ms_min: int = 60 * 1000
    """By so much a clock has to be set back for documents to be shown again that had expired, and for all of the past
    to be looked through anew for what is to be let go."""
    clock_look_seconds: float = 10.0
    """How often the clock is looked at where documents expire: it may be set."""
    expiring_slice_documents: int = 256
    """Documents that expire in one transaction: some milliseconds."""

    # Connections
    handshake_seconds_min: float = 5.0
    """So long a handshake keeps its place, though others want it, and a dial waits for the first word; the next one
    to the same address twice as long, up to `handshake_silence_seconds_max`."""
    handshake_silence_seconds_max: float = 20.0
    handshake_seconds_max: float = 80.0
    """A link of 10 kbit/s with round trips of ten seconds, which loses every third datagram, needs so long."""
    silent_addresses_max: int = 256
    """Of which it is remembered that nobody answered there."""
    half_open_retry_above: int = 32
    half_open_max: int = 128
    half_open_per_address_max: int = 16
    idle_seconds_max: float = 30.0
    keepalive_seconds: float = 10.0
    connections_max: int = 256
    connections_for_known: int = 64
    """Of these, which strangers cannot take."""
    connections_per_address_max: int = 8
    pending_peers_max: int = 64
    peers_max: int = 1024
    """Endpoints that are remembered; beyond, those that are neither named nor connected are forgotten first."""
    redials_burst: int = 8
    """So often a peer may put a new connection in the place of a good one, and then once in `redial_seconds`."""
    redial_seconds: float = 5.0
    streams_per_connection_max: int = 128
    accept_queue_max: int = 16
    close_seconds_max: float = 3.0
    resets_burst: int = 256
    """So many packets of unknown connections are answered with a reset, and then one in `reset_seconds`."""
    reset_seconds: float = 0.02
    resets_per_host_burst: int = 16
    reset_per_host_seconds: float = 0.1
    """The same for the packets of one host."""
    reset_hosts_max: int = 256
    """Hosts of which it is remembered how often they were answered."""

    # Flow control
    send_bytes_per_second_max: float = math.inf
    """Over all peers.  The owner's to set; without, what the network takes."""
    peer_send_bytes_per_second_max: float = math.inf
    """To each peer that has no bound of its own.  The owner's to set, too."""
    stream_window_bytes: int = 4 * 1024 * 1024
    connection_window_bytes: int = 16 * 1024 * 1024
    send_high_water_bytes: int = 512 * 1024
    """Of one stream, not acknowledged, on a path that holds next to nothing."""
    send_slow_path_bytes: int = 64 * 1024
    """The same on a path that is long and narrow, where more would wait for seconds."""
    unproven_window_bytes: int = 64 * 1024
    """What a peer may send before its identity is proved."""
    datagram_bytes: int = 1200
    """UDP payload that every path carries (RFC 9000 section 14)."""
    datagram_bytes_probed: int = 1452
    """UDP payload that is tried once there is much to send: an Ethernet frame over IPv6."""
    datagram_bytes_loopback: int = 16 * 1024
    """UDP payload within one machine, whose MTU is 64 KiB."""

    # Dialling
    discovered_peers_max: int = 256
    """That anyone on the network may make this node believe in."""
    discovered_addresses_max: int = 8
    """Of one peer, from one source."""
    discovered_dials_max: int = 4
    """Peers that are dialled at one time."""
    discovered_wanted_max: int = 8
    """Up to so many are all connected; of more a few are chosen."""
    introduction_tries_max: int = 4
    """How often a peer of which others told is tried before it has to be told of anew."""
    aside_first_seconds: float = 4.0
    aside_last_seconds: float = 300.0
    """How long a discovered peer that cannot be reached is put aside at first, and at most."""
    paths_max: int = 64
    """Addresses of one peer of which it is remembered that they failed."""
    backoff_first_seconds: float = 0.5
    backoff_last_seconds: float = 60.0

    # Discovery
    sightings_max: int = 256
    """Endpoints that one way of discovery tells of; what comes beyond is not looked at while these are there."""
    addresses_per_sighting_max: int = 8
    mdns_ttl_seconds: int = 120
    """How long an announcement counts (RFC 6762 section 10)."""
    mdns_announce_seconds: float = 45.0
    """How often it is repeated, so that two may be lost."""
    mdns_ttl_seconds_max: int = 120
    """How long what others announce counts at most: who floods the network has to go on flooding it."""
    mdns_settle_seconds: float = 0.25
    """So long what changed is gathered before it is told."""
    mdns_requests_max: int = 8
    """Announcements that came in part and are asked for at once."""
    mdns_retry_seconds: float = 5.0
    mdns_retry_seconds_max: float = 300.0

    dns_refresh_seconds_min: float = 5.0
    dns_refresh_seconds_max: float = 300.0
    """How long an answer counts at most, whatever its TTL."""
    dns_absent_seconds: float = 15.0
    """When to ask again for what is not there yet."""
    dns_retry_seconds: float = 2.0
    """When to ask again a server that did not answer; doubled each time, up to `dns_refresh_seconds_max`."""
    dns_answer_seconds_max: float = 5.0
    dns_targets_max: int = 64
    """Targets of service records that are asked who they are."""

    # Interfaces
    interfaces_settle_seconds: float = 0.05
    interfaces_check_seconds: float = 60.0
    """How often to look although nothing was told."""
    interfaces_poll_seconds: float = 2.0
    """How often to look where the system does not tell."""

    # Live push
    push_burst: int = 32
    push_interval_seconds: float = 0.004
    push_interval_seconds_max: float = 0.016
    push_flood_entries: int = 12
    root_check_seconds: float = 30.0

    # Spreading among many (see meshsync.core.spreading)
    eager_subscribers_max: int = 8
    """With more subscribers than this, links over which entries come twice turn lazy."""
    announce_seconds: float = 0.1
    """Until a lazy link tells of news that the peer is not known to have."""
    confirm_seconds: float = 1.0
    """Until it tells of what the peer has, too."""
    announce_tips_max: int = 512
    """In one message."""
    graft_seconds_min: float = 0.2
    """How long what was announced may take to come by another link; and at least one and a half round trips, and as
    long as it took of late, if that is not above this:"""
    graft_late_seconds_max: float = 2.0
    late_fades_seconds: float = 20.0
    """After so long only half as much is waited because something was late."""
    late_logs_max: int = 256
    """Of which it is remembered what was announced."""
    graft_seconds_max: float = 30.0
    """So rarely, in the end, someone is asked who does not send."""
    grafted_seconds_min: float = 1.0
    """So long a link stays eager, though entries come twice, that was made so to get them."""
    pruned_seconds_min: float = 1.0
    """So long a node bears it that a peer pruned its last eager link; twice as long each time, up to `_max`."""
    pruned_seconds_max: float = 16.0
    detour_seconds_min: float = 0.01
    """The tree is changed where entries would come so much sooner, and sooner by most of a round trip."""
    detour_rest_seconds_min: float = 1.0
    """Between two such changes at one node; twice as long each time, up to `_max`."""
    detour_rest_seconds_max: float = 60.0
    detour_author_seconds: float = 30.0
    """Since an entry of an author, by whose entries paths are compared."""
    detour_authors_max: int = 64
    """That are remembered."""
    bulk_entries: int = 64
    """So many make a great deal, which is to come from one peer only."""
    bulk_seconds_max: float = 5.0
    """How long a provider may send nothing; and at least four round trips."""
    bulk_rest_seconds: float = 1.0
    """After the last large batch."""
    quiet_seconds: float = 5.0
    """After so long without a change the roots at the ends of a lazy link should be equal."""

    # Summaries, by which every node knows the whole mesh
    summary_young_seconds: float = 90.0
    """Whoever said something since then is there; by its peers a dead one is missed sooner."""
    summary_authors_max: int = 1024
    """Nodes of one collection that are remembered."""
    summary_links_seconds: float = 2.0
    """At least so long between two summaries, where links changed; holdings may change all the time:"""
    summary_holdings_seconds: float = 5.0
    summary_holdings_seconds_each: float = 1.0
    """For each node that is known: then one link carries about one summary in that time, however many write."""
    summary_refresh_seconds: float = 3600.0
    """Where nothing changed; it is forgotten when three of them stay out."""
    summary_refresh_seconds_each: float = 600.0
    summary_bytes_per_second: float = 4096.0
    """Of summaries on one link."""
    summary_burst_bytes: int = 16 * 1024
    summary_lazy_seconds: float = 30.0
    """Between two summaries on a link over which entries are only announced."""
    summary_answer_seconds: float = 10.0
    """For the peer at such a link to tell what it knows, before it is sent a summary."""
    summary_checks_per_second: float = 50.0
    """Signatures of summaries that one peer may have checked."""
    summary_certain_seconds: float = 60.0
    """What was sent so long before a connection was lost has arrived."""
    summary_absent_peers_max: int = 64
    """Peers without a connection of which is remembered what they know."""

    # Introductions
    links_wanted: int = 3
    """Connected peers that share a collection; while there are fewer, others of that collection are dialled."""
    introduction_seconds: float = 20.0
    """How long one who was introduced may take to be connected; after that it rests, each time for longer."""
    introduction_rest_seconds_max: float = 3600.0

    # Relaying
    relay_bytes_max: int = 1024 * 1024 * 1024
    """Over all collections that are carried for others; what is received at that moment may go above it."""
    relayed_collections_max: int = 96
    """With the subscriptions of a peer they fit into the streams of a connection."""
    relayed_per_peer_max: int = 64
    """Collections carried because one and the same peer asked first."""
    relay_keep_seconds: float = 30 * 86400.0
    """What nobody asked for so long is carried no longer; what the owner left is not carried again for so long."""
    relay_tidy_seconds: float = 3600.0
    """How often what is carried is looked over, and other relays are asked again."""
    relay_pace_seconds: float = 1.0
    """The least time between two changes of what is carried, so that asking costs a peer's time and not ours."""
    carry_collections_max: int = 128
    """In one message."""

    # Store
    free_bytes_min: int = 16 * 1024 * 1024
    wal_bytes_soft: int = 4 * 1024 * 1024
    """From this length on the write-ahead log is moved into the database file."""
    wal_bytes_max: int = 16 * 1024 * 1024
    """From this length on the writer may have to wait for it."""
    store_retry_seconds: float = 1.0
    """How soon a session asks again for what the disk did not take."""
    upkeep_retry_seconds: float = 5.0
    """How soon the work beside everything else goes on where the disk did not take a step of it."""
    sweep_seconds: float = 5.0
    """How often payloads are looked for that are to be let go."""
    branches_per_author_max: int = 64
    repair_seconds_max: float = 30.0
    """How long a repair waits for a peer that sends nothing."""
    held_logs_max: int = 256
    """Logs whose next entries wait that status tells of."""
    staging_bytes_max: int = 8 * 1024 * 1024

    # Queries
    query_depth_max: int = 16
    query_terms_max: int = 256
    query_text_bytes_max: int = 16 * 1024
    index_fields_max: int = 16
    """Indexes of one collection: each is written with every document."""
    candidates_max: int = 100_000
    """Documents that an index may name for a query before all are looked at instead; also ids in memory."""
    sorted_documents_max: int = 250_000
    """Documents that are sorted for one listing where no index has their order: some 50 MB."""

    # Looking into documents
    past_writes_max: int = 1024
    """How far back a question about the present state of one document may look: some 30 ms."""
    overridden_max: int = 16
    """Writes to one field that are listed as overridden."""

    # The owner's files
    config_bytes_max: int = 1024 * 1024
    config_depth_max: int = 16

    # Local readers
    events_kept_max: int = 10_000
    request_bytes_max: int = 4 * 1024 * 1024
    """The body of one request of the control API: room for the largest document, written with escapes."""
    request_head_bytes_max: int = 64 * 1024
    api_connections_max: int = 256
    load_writes_in_flight_max: int = 256
    follower_documents_max: int = 4096
    """Documents of which a reader of changes remembers how they stood at its cursor."""
    follower_bytes_max: int = 4 * 1024 * 1024
    """What that takes, roughly."""
    follower_page_documents: int = 32
    """Documents that are read at a time for a reader of a part: with bodies of the greatest size, 8 MiB."""
    follower_step_documents: int = 256
    """Documents that are looked at at a time for what another part makes enter or leave."""
    follower_writes_max: int = 512
    """Writes to a document that are read to find whether a reader of a part has it; who has more of them is told that
    it left, whether it was told of it before or not."""

    def patience_seconds(self, seconds: float, round_trip_seconds: float) -> float:
        """A bound on what a peer may take, or more than that where the link takes it: some tens of round trips.

        What is lost is sent again after a round trip or more, and on a link that loses half of all it may be lost
        again ten times in a row.  A peer that feigns such a link gains time on its own connection, and nothing else.
        """
        return max(seconds, min(self.patience_round_trips * round_trip_seconds, self.patience_seconds_max))


LIMITS = Limits()
