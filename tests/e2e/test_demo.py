"""The demo, as somebody who tries it out ends it."""
import os
import pathlib
import signal
import tempfile
import unittest

from harness.router import Process, listens, runner, until

OUTGOING = ("127.1.1.1", 4140)


def of_session(session):
    """Processes that belong to this session."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
            except ProcessLookupError:
                pass
    return found


class Demo(unittest.TestCase):
    def test_ctrl_c_leaves_nothing_behind(self):
        with tempfile.TemporaryDirectory() as directory:
            home = pathlib.Path(directory) / "tmp"
            home.mkdir()
            process = Process(["demo"], directory, env={"TMPDIR": str(home), "HOME": str(home)}, name="demo")
            try:
                def answers():
                    self.assertIsNone(process.child.poll(), process.output()[-2000:])
                    return runner.http_call(OUTGOING, {"host": "hello", "timeout_ms": 5000}).get("status") == 200
                until(answers, "hello answers through both nodes")
                process.child.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(), 0, process.output()[-2000:])
                self.assertEqual(of_session(process.pid), [])
                self.assertFalse(listens(OUTGOING[1], OUTGOING[0]))
                self.assertEqual(list(home.rglob("*")), [], "files")
                self.assertNotIn("panicked", process.output())
            finally:
                process.kill()


if __name__ == "__main__":
    unittest.main()
