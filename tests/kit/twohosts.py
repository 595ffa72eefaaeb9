"""Two hosts on one machine: network namespaces and one cable between them, which a test can cut.

Needs root and `ip`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

import pytest

WRONG_MAC = "02:00:00:00:00:01"


class TwoHosts:
    """Use as a context manager. `hosts` are the addresses, `prefixes` what to put before a command to run it there.

    `cut("silent")`: packets vanish, as in a broken switch. `cut("unplugged")`: both ends see the carrier go.
    """

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("needs root and `ip` for network namespaces")
        own = os.getpid() % 10_000
        self.names = [f"rainband-{own}-a", f"rainband-{own}-b"]
        self.cards = [f"rb{own}a", f"rb{own}b"]
        self.hosts = ["10.231.17.1", "10.231.17.2"]
        self.prefixes = [["ip", "netns", "exec", name] for name in self.names]

    def __enter__(self) -> TwoHosts:
        try:
            for name in self.names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            self.close()
            pytest.skip(f"no network namespaces here: {error.stderr}")
        ip("link", "add", self.cards[0], "netns", self.names[0], "type", "veth",
           "peer", "name", self.cards[1], "netns", self.names[1])  # fmt: skip
        for name, card, host in zip(self.names, self.cards, self.hosts, strict=True):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"{host}/24", "dev", card)
            ip("-n", name, "link", "set", card, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def cut(self, way: str) -> None:
        for name, card, other in zip(self.names, self.cards, reversed(self.hosts), strict=True):
            if way == "silent":
                ip("-n", name, "neigh", "replace", other, "lladdr", WRONG_MAC, "dev", card, "nud", "permanent")
            else:
                ip("-n", name, "link", "set", card, "down")

    def mend(self, way: str) -> None:
        for name, card, other in zip(self.names, self.cards, reversed(self.hosts), strict=True):
            if way == "silent":
                ip("-n", name, "neigh", "del", other, "dev", card)
            else:
                ip("-n", name, "link", "set", card, "up")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
