"""A cable in user space: copies Ethernet frames between two interfaces and does to them what an impairment says.

For kernels without netem, and to stand as a node of its own between two others in a topology.  Linux, with the right to
open packet sockets (CAP_NET_RAW).
"""
