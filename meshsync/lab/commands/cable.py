"""`lab cable`: a cable between two interfaces, or those of a lab."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import click

from meshsync.cli.output import write_line
from meshsync.lab.commands.group import examples


@click.command("cable", epilog=examples("sudo meshsync lab cable eth1 eth2 --profile jtrs"))
@click.argument("interfaces", nargs=-1)
@click.option("--profile", default="nominal", metavar="NAME", help="What the cable does to what it carries.  [nominal]")
@click.option(
    "--with",
    "kind",
    type=click.Choice(["auto", "netem", "user-space"]),
    default="user-space",
    help="What carries: the kernel's netem, this process, or netem where there is one (auto).  [default: user-space]",
)
@click.option("--control", type=click.Path(path_type=Path), default=None, hidden=True)
def cable_command(interfaces: tuple[str, ...], profile: str, kind: str, control: Path | None) -> None:
    """Connect two interfaces with a cable that delays and loses what it carries, until it is interrupted.

    For networks that are no lab.  The interfaces may come later; nothing else should connect them.  Needs Linux, and
    root or the right to open packet sockets (CAP_NET_RAW).

    With netem the interfaces become ports of bridges, and lose their link-local addresses, for as long as it runs; that
    needs iproute2, and root or the right to change interfaces (CAP_NET_ADMIN).  It carries more, and is in time.
    """
    import trio

    from meshsync.groups import unwrapped
    from meshsync.lab.cable.control import serve_cables
    from meshsync.lab.cable.kinds import chosen, make
    from meshsync.lab.impairments import read_link_impairment
    from meshsync.lab.interruption import tidy_at_the_end

    rng = random.Random()
    with tidy_at_the_end(), unwrapped():
        if control is not None:
            trio.run(serve_cables, control, chosen(kind), rng)
            return
        if len(interfaces) != 2:
            raise click.UsageError("a cable has two ends: name two interfaces")
        impairment = read_link_impairment(profile)
        kind = chosen(kind)
        missing = sorted(set(interfaces) - {name for _, name in socket.if_nameindex()})
        waits = f"; waiting for {' and '.join(missing)}" if missing else ""
        write_line(f"a cable between {' and '.join(interfaces)}, {profile}, {kind}, until it is interrupted{waits}")

        async def carry() -> None:
            await make(kind, *interfaces, impairment, rng).run()

        trio.run(carry)
