"""Real redis-servers on loopback ports: alone, with a replica and Sentinels, or as a cluster."""

from __future__ import annotations

import random
import socket as sockets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from gateway.redis_server import find_binary

SLOTS = 16_384
BUS = 10_000  # a cluster's nodes talk to each other on their port + 10,000
DURABLE = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}


def free_port() -> int:
    """A port that is free, and whose bus port is too; below those that the kernel gives out by itself."""
    while True:
        port = random.randrange(12_000, 22_000)
        try:
            for each in (port, port + BUS):
                with sockets.socket() as tried:
                    tried.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


def wait_until(true: Callable[[], Any], *, what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


class Node:
    """One redis-server (or Sentinel) with a port and a folder of its own. Can be killed and started again."""

    def __init__(self, directory: Path, **options: str) -> None:
        self.port = free_port()
        self.directory = directory / str(self.port)
        self.directory.mkdir(mode=0o700)
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *, sentinel: bool = False) -> None:
        written = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory), **self.options}
        written |= {"logfile": str(self.directory / "redis.log")}
        config = self.directory / "redis.conf"
        if not config.exists():  # a Sentinel writes what it learns into it
            config.write_text("".join(f"{name} {value or chr(34) * 2}\n" for name, value in written.items()))
        command = [str(find_binary()), str(config), *(["--sentinel"] if sentinel else [])]
        self.process = subprocess.Popen(command)
        wait_until(self.answers, what=f"redis-server on {self.port}")

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except RedisConnectionError:
            return False

    def ask(self, *command: Any) -> Any:
        with Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """kill -9, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()  # nothing of it is needed any more, and a Sentinel takes its time to end


@contextmanager
def stopped_at_the_end(nodes: Sequence[Node]) -> Iterator[None]:
    try:
        yield
    finally:
        for node in nodes:
            node.stop()


@contextmanager
def a_cluster(directory: Path, *, replicas: int = 0) -> Iterator[list[Node]]:
    """Three primaries that share the slots, then ``replicas`` of each."""
    options = {"cluster-enabled": "yes", "cluster-node-timeout": "1000", **DURABLE}
    nodes = [Node(directory, **options) for _ in range(3 * (1 + replicas))]
    with stopped_at_the_end(nodes):
        for node in nodes:
            node.start()
        share = SLOTS // 3 + 1
        for at, node in enumerate(nodes):
            if at < 3:
                node.ask("CLUSTER", "ADDSLOTS", *range(at * share, min(SLOTS, (at + 1) * share)))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for at, node in enumerate(nodes[3:]):
            follow(node, nodes[at % 3].ask("CLUSTER", "MYID"))
        for node in nodes:
            wait_until(partial(is_whole, node, len(nodes)), what="the cluster")
        for node in nodes[:3]:
            wait_until(partial(has_replicas, node, replicas), what="replicas")
        yield nodes


def follow(node: Node, primary: str) -> None:
    def does() -> bool:
        try:
            return bool(node.ask("CLUSTER", "REPLICATE", primary))
        except ResponseError:  # it has not heard of that node yet
            return False

    wait_until(does, what="a replica of the cluster")


def is_whole(node: Node, size: int) -> bool:
    state = node.ask("CLUSTER INFO")
    return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == str(size)


def has_replicas(node: Node, number: int) -> bool:
    """Whether so many replicas have all that it has."""
    found = node.ask("INFO", "replication")
    return [found[f"slave{at}"]["state"] for at in range(found["connected_slaves"])] == ["online"] * number


@dataclass
class Watched:
    """A primary, its replicas, and Sentinels that watch them as ``mymaster``."""

    primary: Node
    replicas: list[Node]
    sentinels: list[Node]


@contextmanager
def a_primary_with_sentinels(directory: Path, *, replicas: int = 1, sentinels: int = 3) -> Iterator[Watched]:
    primary = Node(directory, **DURABLE)
    followers = [Node(directory, replicaof=f"127.0.0.1 {primary.port}", **DURABLE) for _ in range(replicas)]
    watching = {
        "sentinel monitor": f"mymaster 127.0.0.1 {primary.port} {sentinels // 2 + 1}",
        "sentinel down-after-milliseconds": "mymaster 500",
        "sentinel failover-timeout": "mymaster 3000",
    }
    watchers = [Node(directory, **watching) for _ in range(sentinels)]
    with stopped_at_the_end([primary, *followers, *watchers]):
        for node in (primary, *followers):
            node.start()
        wait_until(partial(has_replicas, primary, replicas), what="the replicas")
        for watcher in watchers:
            watcher.start(sentinel=True)
        for watcher in watchers:
            wait_until(partial(_sees_all, watcher, replicas, sentinels), what="the Sentinels")
        yield Watched(primary, followers, watchers)


def _sees_all(watcher: Node, replicas: int, sentinels: int) -> bool:
    found = watcher.ask("SENTINEL", "MASTER", "mymaster")
    return (int(found["num-slaves"]), int(found["num-other-sentinels"])) == (replicas, sentinels - 1)
