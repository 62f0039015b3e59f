"""The container image, the compose file and the systemd unit."""

from __future__ import annotations

import configparser
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshsync.config import resolve_settings
from tests.lab.engines import built_image, docker, needs_engine
from tests.lab.labs import TOPOLOGIES, wait_until

IMAGE = TOPOLOGIES / "image"
UNIT = IMAGE / "meshsync.service"


class Unit(configparser.RawConfigParser):
    """A unit file: keys may come again, and then count together."""

    def __init__(self) -> None:
        super().__init__(strict=False, comment_prefixes=("#",), delimiters=("=",))
        self.read(UNIT)

    def optionxform(self, optionstr: str) -> str:
        """Upper and lower case differ."""
        return optionstr


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((IMAGE / "compose.yml").read_text(encoding="utf-8"))
    return found


# What needs no engine


def test_the_image_runs_a_node_under_its_supervisor_without_root() -> None:
    """Otherwise a fault in a node is root's fault, `docker stop` kills it, or nobody sees that it is out of sync."""
    lines = [
        line for line in (IMAGE / "Dockerfile").read_text().splitlines() if line and not line.startswith((" ", "#"))
    ]
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    keys = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in last}
    assert keys["USER"] == "meshsync"
    assert keys["VOLUME"] == "/var/lib/meshsync"
    assert keys["STOPSIGNAL"] == "SIGTERM"
    assert keys["HEALTHCHECK"].endswith('CMD ["meshsync", "status", "--check"]')
    assert keys["ENTRYPOINT"] == '["/usr/local/bin/supervise"]'
    assert keys["CMD"] == '["meshsync", "node", "--config", "/var/lib/meshsync/meshsync.yaml"]'
    assert os.access(IMAGE / "supervise", os.X_OK)


def test_three_nodes_of_the_compose_file_have_disks_of_their_own_and_one_key() -> None:
    """Two nodes on one volume would share an identity; without the key they would not talk."""
    services = compose()["services"]
    assert list(services) == ["a", "b", "c"]
    assert len({service["volumes"][0] for service in services.values()}) == 3
    assert {volume.partition(":")[0] for service in services.values() for volume in service["volumes"]} == set(
        compose()["volumes"]
    )
    for name, service in services.items():
        assert service["image"] == "meshsync:latest"
        assert service["environment"]["MESHSYNC_NAME"] == name
        assert service["environment"]["MESHSYNC_MESH_KEY_FILE"] == f"/run/secrets/{service['secrets'][0]}"
        assert set(service["secrets"]) == set(compose()["secrets"])


def test_the_variables_of_the_compose_file_are_a_configuration(tmp_path: Path) -> None:
    """A variable that is misspelt is ignored, and nobody says so."""
    for service in compose()["services"].values():
        environ = service["environment"] | {"MESHSYNC_DATA_DIR": str(tmp_path)}
        config = resolve_settings({}, environ, None).config
        assert (config.trust, config.discovery.mdns, str(config.mesh_key_file)) == (
            "mesh-key",
            False,
            environ["MESHSYNC_MESH_KEY_FILE"],
        )
        assert [str(one) for one in config.discovery.dns] == ["mesh"]
        assert [one.name for one in config.collections] == ["notes"]


def test_the_unit_waits_until_the_node_is_ready_and_gives_it_little() -> None:
    """Otherwise what depends on the node starts too early, or a fault in it reaches the rest of the machine."""
    unit = Unit()
    service = dict(unit["Service"])
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert service["StateDirectory"] == "meshsync"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["CapabilityBoundingSet"] == ""
    assert "AF_NETLINK" in service["RestrictAddressFamilies"].split()
    for key in ("DynamicUser", "NoNewPrivileges", "PrivateDevices", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert service[key] == "yes"
    # Without the network: a node works offline.
    assert unit["Unit"]["After"] == "network.target"
    assert "Requires" not in unit["Unit"]


def test_the_command_of_the_unit_is_one_of_ours(tmp_path: Path) -> None:
    """Options of a command change; the unit is where nobody looks."""
    program, *arguments = Unit()["Service"]["ExecStart"].split()
    assert Path(program).name == "meshsync"
    config = tmp_path / "meshsync.yaml"
    config.write_text("name: unit\n")
    arguments = [
        one.replace("/etc/meshsync/meshsync.yaml", str(config)).replace("%S", str(tmp_path)) for one in arguments
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "meshsync", *arguments, "--check-config"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """A key that systemd does not know is passed over, with one line in a log."""
    there = tmp_path / UNIT.name
    there.write_text(UNIT.read_text().replace("/opt/meshsync/bin/meshsync", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", there], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])


# The real thing


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    yield from built_image(f"meshsync:test-{os.getpid()}")


@needs_engine
def test_a_container_is_a_node_that_a_kill_does_not_end(image: str) -> None:
    """The image is what people run first; what is written has to be there after its node was killed."""
    name = f"meshsync-test-{secrets.token_hex(4)}"
    docker("run", "--detach", "--name", name, "--network", "none", image, "meshsync", "node", "--collection", "notes")
    try:

        def answers() -> bool:
            return (
                subprocess.run(
                    ["docker", "exec", name, "meshsync", "status"], capture_output=True, check=False
                ).returncode
                == 0
            )

        wait_until(answers)
        assert docker("exec", name, "id", "--user").strip() == "10001"
        docker("exec", name, "meshsync", "put", "notes", "n1", '{"n": 1}')
        docker("kill", "--signal", "USR1", name)
        wait_until(answers)
        assert docker("exec", name, "meshsync", "get", "notes", "n1").strip() == '{"n":1}'
        docker("stop", "--time", "30", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        docker("rm", "--force", "--volumes", name)
