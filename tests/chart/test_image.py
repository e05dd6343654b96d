"""The container image: what is in it, how large it is, and that it runs as nobody on a read-only root."""
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import time
import unittest

import chart

#: The limit of the whole, unpacked, for the program as it is shipped (`tests/run image`).
MOST_BYTES = 25 << 20
#: What the image may have beside the program: loader and C library.
MOST_BESIDE = 4 << 20
PROGRAM = "usr/local/bin/rutter"

CONFIG = """\
admin: {ip: 127.0.0.1, port: 9990}
routers:
- protocol: http
  dtab: /svc => /$/inet/127.0.0.1/9990
  servers: [{port: 4140}]
"""


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="rutter-image-")))
        cls.shipped = os.environ.get("RUTTER_DIST")
        cls.program = cls.shipped or os.environ["RUTTER"]
        cls.file = cls.directory / "image.tar"
        cls.said = cls.build(cls.file)
        with tarfile.open(cls.file) as archive:
            cls.blobs = {entry.name: archive.extractfile(entry).read() for entry in archive}
        [manifest] = json.loads(cls.blobs["index.json"])["manifests"]
        cls.manifest = json.loads(cls.blob(manifest["digest"]))
        cls.config = json.loads(cls.blob(cls.manifest["config"]["digest"]))
        [layer] = cls.manifest["layers"]
        cls.layer = gzip.decompress(cls.blob(layer["digest"]))
        with tarfile.open(fileobj=io.BytesIO(cls.layer)) as archive:
            cls.entries = {entry.name: entry for entry in archive}
        cls.root = cls.directory / "root"
        with tarfile.open(fileobj=io.BytesIO(cls.layer)) as archive:
            archive.extractall(cls.root)

    @classmethod
    def build(cls, file):
        done = subprocess.run([chart.ROOT / "image" / "build", "--program", cls.program, "--name", "localhost/rutter:test", "--out", file], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @classmethod
    def blob(cls, digest):
        data = cls.blobs["blobs/" + digest.replace(":", "/")]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
        return data

    def test_it_is_small(self):
        sizes = {name: entry.size for name, entry in self.entries.items()}
        self.assertEqual(sum(sizes.values()), self.said["bytesUnpacked"])
        self.assertLess(sum(sizes.values()) - sizes[PROGRAM], MOST_BESIDE)
        self.assertLess(self.file.stat().st_size, MOST_BYTES)
        if self.shipped:
            self.assertLess(sum(sizes.values()), MOST_BYTES)

    def test_it_holds_the_program_and_what_it_needs_and_nothing_else(self):
        files = {name for name, entry in self.entries.items() if entry.isfile()}
        libraries = {name for name in files if name.startswith(("lib/", "lib64/", "usr/lib/"))}
        self.assertEqual(files - libraries, {PROGRAM, "etc/passwd", "etc/group", "etc/nsswitch.conf", "usr/share/doc/rutter/LICENSE"})
        for name in libraries:
            self.assertRegex(name, r"/(ld-linux-[\w-]+|lib(c|m|gcc_s|dl|pthread|rt))\.so\.\d+$")
        for name, entry in self.entries.items():
            self.assertEqual((entry.uid, entry.gid, entry.mtime), (0, 0, 0), name)
            self.assertFalse(entry.mode & 0o6000, f"{name} would give rights")

    def test_engines_find_what_they_look_for(self):
        [docker] = json.loads(self.blobs["manifest.json"])
        self.assertEqual(docker["RepoTags"], ["localhost/rutter:test"])
        self.assertEqual(docker["Layers"], ["blobs/" + self.manifest["layers"][0]["digest"].replace(":", "/")])
        self.assertEqual(self.config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(self.layer).hexdigest()])
        run = self.config["config"]
        self.assertEqual((run["User"], run["Entrypoint"], run["Cmd"]), ("65532:65532", ["/" + PROGRAM], ["run", "/etc/rutter/config.yaml"]))
        [entry] = json.loads(self.blobs["index.json"])["manifests"]
        self.assertEqual(entry["annotations"]["io.containerd.image.name"], "localhost/rutter:test")

    def test_the_same_program_gives_the_same_image(self):
        again = self.directory / "again.tar"
        self.assertEqual(self.build(again)["digest"], self.said["digest"])
        self.assertEqual(again.read_bytes(), self.file.read_bytes())

    def test_it_runs_as_any_user_with_a_read_only_root(self):
        config = self.directory / "config.yaml"
        config.write_text(CONFIG)
        config.chmod(0o644)
        # In mounts of its own: the root is bound read-only, the configuration over its place.
        inside = """
            set -e
            mount --bind "$1" "$1" && mount --bind "$2" "$1/etc/rutter" && mount -o remount,bind,ro "$1/etc/rutter" && mount -o remount,bind,ro "$1"
            if touch "$1/tmp/x" 2>/dev/null; then echo "the root can be written" >&2; exit 9; fi
            exec chroot --userspec=65534:65534 "$1" /usr/local/bin/rutter "$3" /etc/rutter/config.yaml
        """
        only = self.directory / "etc"
        only.mkdir(mode=0o755)
        (only / "config.yaml").write_text(CONFIG)
        child = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", self.root, only, "run"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={})
        try:
            end = time.monotonic() + 20
            while True:
                done = chart.rutter("curl", "--proxy", "127.0.0.1:4140", "http://any/admin/ping")
                if done.stdout.strip() == "pong":
                    break
                if child.poll() is not None or time.monotonic() > end:
                    child.kill()
                    self.fail(f"{done.stderr}\n{child.communicate()[0].decode()}")
                time.sleep(0.1)
            owner = os.stat(f"/proc/{child.pid}")
            self.assertEqual((owner.st_uid, owner.st_gid), (65534, 65534))
        finally:
            child.terminate()
            output, _ = child.communicate(timeout=30)
        self.assertEqual(child.returncode, 0, output.decode())

    def test_what_is_no_program_is_refused(self):
        done = subprocess.run([chart.ROOT / "image" / "build", "--program", __file__, "--out", self.directory / "no.tar"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is no 64-bit Linux program", done.stderr)
        self.assertFalse((self.directory / "no.tar").exists())
