"""What a request costs in system calls, counted with strace: on a busy machine they are as many as on an idle one."""
import collections
import contextlib
import os
import pathlib
import re
import signal
import unittest

from harness.router import Router, Server, head, until

REQUESTS = 100
#: A thread and its call; the end of a call that another thread's came between has none.
LINE = re.compile(r"(?P<thread>\d+) +(?:(?P<call>\w+)\((?P<arguments>.*)|<\.\.\. .*)")
#: Waking another thread and giving memory back is not a request's matter.
CALLS = "trace=!futex,sched_yield,madvise"


class Traced(Router):
    """A router of one data thread under strace."""

    def __init__(self, **kwargs):
        super().__init__(within=["strace", "-f", "-qq", "-s", "32", "-e", CALLS, "-e", "signal=none", "-o", "calls"],
                         edit=lambda text: text + "workers: 1\n", **kwargs)

    def program(self):
        """Its pid; strace's is `pid`."""
        return int(pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def kill(self):
        # Without strace it would go on.
        if self.child.poll() is None:
            os.kill(self.program(), signal.SIGKILL)
        super().kill()

    @contextlib.contextmanager
    def paused(self):
        """The program stands still, until `resume` or the end of this."""
        self.traced = self.program()
        os.kill(self.traced, signal.SIGSTOP)
        try:
            yield
        finally:
            self.resume()

    def resume(self):
        os.kill(self.traced, signal.SIGCONT)

    def between(self, first, last):
        """The calls of the data thread after it has read a request for `first`, until it reads one for `last`."""
        path = self.directory / "calls"

        def lines():
            text = path.read_text(errors="replace")
            return text.splitlines() if f'"GET {last} ' in text else None
        all_lines, thread, calls = until(lines, f"{last} is in the trace"), None, []
        for line in all_lines:
            found = LINE.match(line)
            if not found or not found["call"]:
                continue
            if f'"GET {first} ' in line:
                thread = found["thread"]
            elif found["thread"] == thread:
                if f'"GET {last} ' in line:
                    return calls
                if "MSG_MORE" in line:
                    calls.append(found["call"] + ", and more")
                else:
                    # The thread's own eventfd: it looks earlier than it meant to.
                    calls.append("wake" if r'"\1\0\0\0\0\0\0\0", 8' in line else found["call"])
        raise AssertionError(f"no {first} and {last} of one thread in the trace")


def tally(calls):
    counts = collections.Counter(calls)
    return {call: round(counts[call] / REQUESTS, 2) for call in sorted(counts)}


def backend():
    """Head and body in one piece, as servers send them: two would be read twice now and then."""
    answer = head("HTTP/1.1 200 OK", "Content-Length: 5") + "hello"

    def script(connection):
        while True:
            connection.head()
            connection.send(answer)
    return Server(script)


def path(n):
    return {10: "/first", 10 + REQUESTS: "/last"}.get(n, "/")


class SystemCalls(unittest.TestCase):
    def test_a_request_on_open_connections_is_two_reads_and_two_writes(self):
        with backend() as server, Traced(names={"web": [server.address]}) as router, router.connect() as client:
            for n in range(REQUESTS + 20):
                self.assertEqual(client.get(path(n)).response()["status"], 200)
            each = tally(router.between("/first", "/last"))
            self.assertLessEqual(reads(each), 2.05, each)
            self.assertLessEqual(writes(each), 2.05, each)
            # To wait for one side and for the other, and sometimes once more without waiting.
            self.assertLessEqual(each["epoll_wait"], 3.1, each)
            # Beside these only the clock's and the queue's now and then.
            self.assertLessEqual(sum(each.values()), 7.2, each)

    def test_a_connection_for_a_request_costs_accept_and_close_beside_and_a_watch_when_its_request_comes_later(self):
        with backend() as server, Traced(names={"web": [server.address]}) as router:
            for n in range(REQUESTS + 20):
                with router.connect() as client:
                    self.assertEqual(client.get(path(n), "web", "Connection: close").response()["status"], 200)
            calls = router.between("/first", "/last")
            each = tally(calls)
            self.assertEqual(each.get("setsockopt", 0), 0, f"inherited from the listening socket: {each}")
            self.assertEqual(each.get("getsockname", 0), 0, f"the listener's own address is known: {each}")
            self.assertEqual(each.get("shutdown", 0), 1, f"answer and end are one segment: {each}")
            for before, call in zip(calls, calls[1:]):
                if call == "shutdown":
                    self.assertEqual(before, "sendto, and more", "nothing may keep the answer waiting")
            self.assertLessEqual(each["accept4"], 1.05, f"none that finds nothing: it makes a socket before it looks: {each}")
            self.assertLessEqual(each["ppoll"], 1.05, f"whether there is another one: {each}")
            self.assertLessEqual(each.get("epoll_ctl", 0), 2.1, each)
            self.assertLessEqual(reads(each), 3.1, each)
            self.assertLessEqual(writes(each), 2.1, each)
            self.assertLessEqual(each.get("wake", 0), 0.5, each)


    def test_a_connection_whose_request_is_there_already_is_never_watched(self):
        with backend() as server, Traced(names={"web": [server.address]}) as router:
            for n in range(REQUESTS + 20):
                # The program looks when connection and request are both there.
                with router.paused(), router.connect() as client:
                    client.get(path(n), "web", "Connection: close")
                    router.resume()
                    self.assertEqual(client.response()["status"], 200)
            each = tally(router.between("/first", "/last"))
            self.assertLessEqual(each.get("epoll_ctl", 0), 0.1, each)
            self.assertLessEqual(reads(each), 2.1, each)


def reads(each):
    return sum(each.get(call, 0) for call in ("read", "readv", "recvfrom", "recvmsg"))


def writes(each):
    return sum(each.get(call, 0) for call in ("write", "writev", "sendto", "sendto, and more", "sendmsg"))


if __name__ == "__main__":
    unittest.main()
