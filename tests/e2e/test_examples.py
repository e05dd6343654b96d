"""The example configurations of the documents route as they say."""
import pathlib
import unittest

from harness.router import Router, Server, answering, free_port

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "examples"


class Examples(unittest.TestCase):
    def test_names_in_files(self):
        text = (EXAMPLES / "files.yaml").read_text()
        port, admin = free_port(), free_port()
        for known, here in (("port: 4140", f"port: {port}"), ("port: 9990", f"port: {admin}"), ("rootDir: /tmp/names", "rootDir: disco")):
            self.assertIn(known, text)
            text = text.replace(known, here)
        with Server(answering(b"from a file")) as server:
            router = Router(config=text, names={"web": [server.address]})
            router.port, router.admin = port, admin
            with router:
                self.assertEqual(router.request("web").get("body"), b"from a file")


if __name__ == "__main__":
    unittest.main()
