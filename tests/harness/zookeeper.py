"""A real ZooKeeper server for a test, and a client that writes into it."""
import json
import logging
import os
import pathlib
import socket
import subprocess

from kazoo.client import KazooClient
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl  # noqa: F401  (for the tests)

from .router import free_port, until


# It tells of each connection that breaks, which is what the tests do.
logging.getLogger("kazoo").setLevel(logging.CRITICAL)


class ZooKeeper:
    """The real server, alone; it keeps its data over a kill."""

    def __init__(self, directory):
        self.directory, self.port, self.child = pathlib.Path(directory), free_port(), None
        self.config = self.directory / "zoo.cfg"
        self.config.write_text(f"dataDir={self.directory / 'data'}\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
                               "tickTime=500\nadmin.enableServer=false\n4lw.commands.whitelist=ruok,wchs,cons\n")
        self.log = (self.directory / "zookeeper.log").open("ab")

    def start(self):
        self.child = subprocess.Popen(
            ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp", f"{os.environ['ZOOKEEPER']}/lib/*",
             "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self.config)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        until(lambda: self.child.poll() is not None or self.ask("ruok") == "imok", "ZooKeeper is up", patience=60)
        assert self.child.poll() is None, pathlib.Path(self.log.name).read_text()[-3000:]

    def ask(self, command):
        """The answer to one of its four letter commands; none when there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
                connection.sendall(command.encode())
                return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return None

    def kill(self):
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def stop(self):
        self.kill()
        self.log.close()

    def client(self):
        """A client with a session of its own, which is over when it is closed."""
        client = KazooClient(f"127.0.0.1:{self.port}", timeout=4)
        client.start(timeout=30)
        return client


def member(address, status="ALIVE", shard=0, host=None, **additional):
    """What a member of a serverset writes; addresses are (host, port)."""
    endpoint = lambda at: {"host": at[0], "port": at[1]}
    return json.dumps({"serviceEndpoint": endpoint((host or address[0], address[1])),
                       "additionalEndpoints": {name: endpoint(at) for name, at in additional.items()},
                       "status": status, "shard": shard}).encode()


def join(client, group, data, ephemeral=False):
    """A new member's node."""
    client.ensure_path(group)
    data = data if isinstance(data, bytes) else data.encode()
    return client.create(f"{group}/member_", data, ephemeral=ephemeral, sequence=True)
