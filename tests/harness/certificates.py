"""Certificates made by openssl: authorities, and what they sign."""
import dataclasses
import pathlib
import subprocess
import time

CONFIG = """\
[ca]
default_ca = own
[own]
new_certs_dir = {directory}
database = {directory}/index.txt
serial = {directory}/serial
default_md = sha256
policy = names
unique_subject = no
[names]
commonName = supplied
organizationName = optional
"""

#: A time that is over.
PAST = ("20200101000000Z", "20200201000000Z")
USUAL = (None, 825)


def soon_over():
    """A time that was long and ends in less than five days."""
    return PAST[0], time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 5 * 86400 - 3600))


def openssl(*arguments, **kwargs):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, **kwargs)
    if done.returncode:
        raise AssertionError(f"openssl {arguments}: {done.stderr}")
    return done.stdout


@dataclasses.dataclass
class Pair:
    """A certificate's file and its key's."""

    cert: pathlib.Path
    key: pathlib.Path

    def put(self, other):
        """Takes another pair's place, the key first, each file renamed over the old one."""
        for old, new in ((self.key, other.key), (self.cert, other.cert)):
            beside = old.with_suffix(".new")
            beside.write_bytes(new.read_bytes())
            beside.rename(old)


def key(path, algorithm="EC"):
    options = {"EC": ["-pkeyopt", "ec_paramgen_curve:P-256"], "RSA": ["-pkeyopt", "rsa_keygen_bits:2048"]}[algorithm]
    openssl("genpkey", "-algorithm", algorithm, *options, "-out", path)
    return path


class Authority:
    """Signs certificates; its own is `cert`."""

    def __init__(self, directory, name="test authority"):
        self.directory = pathlib.Path(directory) / name.replace(" ", "-")
        self.directory.mkdir()
        (self.directory / "index.txt").write_text("")
        (self.directory / "serial").write_text("1000\n")
        self.config = self.directory / "ca.conf"
        self.config.write_text(CONFIG.format(directory=self.directory))
        self.cert, self.key = self.directory / "ca.pem", key(self.directory / "ca.key")
        openssl("req", "-x509", "-new", "-key", self.key, "-subj", f"/CN={name}", "-days", 825, "-out", self.cert)
        self.made = 0

    def issue(self, common_name, names=(), validity=USUAL, algorithm="EC", uses="serverAuth,clientAuth"):
        """A certificate for these names: `DNS:web.test`, `IP:127.0.0.1`, `URI:spiffe://x`. Without names it has no alternative ones."""
        self.made += 1
        base = self.directory / f"{self.made}-{common_name.replace('*', 'any').replace('/', '_')}"
        pair = Pair(base.with_name(base.name + ".pem"), key(base.with_name(base.name + ".key"), algorithm))
        request, extensions = base.with_name(base.name + ".csr"), base.with_name(base.name + ".ext")
        openssl("req", "-new", "-key", pair.key, "-subj", f"/O=Tests/CN={common_name}", "-out", request)
        lines = ["basicConstraints = CA:FALSE", f"extendedKeyUsage = {uses}"]
        if names:
            lines.append("subjectAltName = " + ",".join(names))
        extensions.write_text("\n".join(lines) + "\n")
        start, end = validity
        period = ["-days", end] if start is None else ["-startdate", start, "-enddate", end]
        openssl("ca", "-batch", "-notext", "-config", self.config, "-cert", self.cert, "-keyfile", self.key, *period,
                "-extfile", extensions, "-in", request, "-out", pair.cert)
        return pair


def self_signed(directory, common_name):
    """A certificate that nobody else has signed, as `openssl req -x509` makes it: it is its own authority."""
    base = pathlib.Path(directory) / f"self-{common_name}"
    pair = Pair(base.with_suffix(".pem"), key(base.with_suffix(".key"), "RSA"))
    openssl("req", "-x509", "-new", "-key", pair.key, "-subj", f"/CN={common_name}", "-days", 100, "-out", pair.cert)
    return pair
