"""The one place that names what zeroconf does not export: records and questions.

Its public classes hand out records and take questions, but their types are in its private modules.
"""

from zeroconf._dns import DNSAddress, DNSPointer, DNSQuestion, DNSRecord, DNSService
from zeroconf._protocol.outgoing import DNSOutgoing

__all__ = ["DNSAddress", "DNSOutgoing", "DNSPointer", "DNSQuestion", "DNSRecord", "DNSService"]
