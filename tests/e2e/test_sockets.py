"""The options of a router's sockets, read from the sockets themselves."""
import ctypes
import os
import socket
import unittest

from harness.router import Router, Server, answering, until

PIDFD_GETFD = 438  # the same on every architecture


def sockets(pid):
    """Copies of a process's connected TCP sockets, by the port of the other side."""
    libc, found = ctypes.CDLL(None, use_errno=True), {}
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue  # closed meanwhile
            copy = libc.syscall(PIDFD_GETFD, process, int(name), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd: may this user look into its own child?")
            one = socket.socket(fileno=copy)
            try:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    found[one.getpeername()[1]] = one
                    continue
            except OSError:
                pass  # it listens
            one.close()
    finally:
        os.close(process)
    return found


class Options(unittest.TestCase):
    def test_both_sides_send_at_once_and_notice_a_machine_that_is_gone(self):
        with Server(answering()) as server, Router(names={"web": [server.address]}) as router, router.connect() as client:
            self.assertEqual(client.get().response()["status"], 200)
            mine = client.socket.getsockname()[1]
            both = until(lambda: (lambda all: all if {mine, server.address[1]} <= set(all) else None)(sockets(router.pid)), "both connections are open")
            for side, port in (("client's", mine), ("endpoint's", server.address[1])):
                with self.subTest(side):
                    self.assertTrue(both[port].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "TCP_NODELAY")
                    self.assertTrue(both[port].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "SO_KEEPALIVE")
            for one in both.values():
                one.close()


if __name__ == "__main__":
    unittest.main()
