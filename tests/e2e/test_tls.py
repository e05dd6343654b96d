"""TLS of listeners and towards endpoints: what is accepted and what is not, between two routers, and while certificates change."""
import hashlib
import http.client
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from harness.certificates import PAST, Authority, openssl, self_signed, soon_over
from harness.needs import program
from harness.router import Router, Server, answering, head, until


def seeing(heads):
    """Answers with 200, and notes the heads that came."""
    def script(connection):
        while True:
            first, fields = connection.head()
            connection.reader.body(fields, False)
            heads.append((first, {name.lower(): value for name, value in fields}))
            connection.send(head("HTTP/1.1 200 OK", "Content-Length: 5") + "hello")
    return script


class Secure(unittest.TestCase):
    """An authority, certificates, and routers that use them."""

    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="rutter-tls-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        cls.authority = Authority(cls.directory)
        cls.stranger = Authority(cls.directory, "another authority")
        cls.pair = cls.authority.issue("web.test", ["DNS:web.test", "DNS:localhost", "IP:127.0.0.1"])
        cls.node = cls.authority.issue("node-a", ["URI:spiffe://test/node-a", "DNS:node-a.test"])

    def listener(self, pair=None, **keys):
        """The text of a server's `tls`, as JSON, which is YAML."""
        pair = pair or self.pair
        return json.dumps({"certPath": str(pair.cert), "keyPath": str(pair.key), **keys})

    def mutual(self, pair=None, **keys):
        return self.listener(pair, caCertPath=str(self.authority.cert), requireClientAuth=True, **keys)

    def secured(self, tls, **kwargs):
        """A router whose listener has this `tls`."""
        def edit(text):
            return text.replace("  servers:\n  - {ip: 127.0.0.1, port: ", "  servers:\n  - {tls: %s, ip: 127.0.0.1, port: " % tls)
        return self.enterContext(Router(edit=edit, **kwargs))

    def sending(self, tls, address, prefix="/#/io.l5d.fs/{service}", **kwargs):
        """A router that sends to `address` with this `tls`."""
        client = {"kind": "io.l5d.static", "configs": [{"prefix": prefix, "tls": tls}]}
        return self.enterContext(Router(f"client: {json.dumps(client)}", names={"web": [address]}, **kwargs))

    def trusting(self, **keys):
        return {"commonName": "{service}.test", "trustCertsBundle": str(self.authority.cert), **keys}

    def showing(self, pair):
        return self.trusting(clientAuth={"certPath": str(pair.cert), "keyPath": str(pair.key)})

    def context(self, pair=None, **options):
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        if pair:
            context.load_cert_chain(str(pair.cert), str(pair.key))
        for name, value in options.items():
            setattr(context, name, value)
        return context

    def get(self, router, context=None, path="/", **options):
        connection = http.client.HTTPSConnection("localhost", router.port, context=context or self.context(**options), timeout=20)
        self.addCleanup(connection.close)
        connection.request("GET", path, headers={"Host": "web"})
        response = connection.getresponse()
        return response.status, response.read()

    def metric(self, router, name, **labels):
        """The sum of a metric over all that have these labels."""
        page = router.get_admin("/metrics")["body"].decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines()
                   if line.startswith(name + "{") and all(one in line for one in wanted))

    def backend(self, script=None):
        return self.enterContext(Server(script or answering()))


class Listener(Secure):
    def setUp(self):
        self.server = self.backend()

    def router(self, tls=None):
        return self.secured(tls or self.listener(), names={"web": [self.server.address]})

    def test_curl_gets_an_answer_when_it_knows_the_authority_and_not_otherwise(self):
        router = self.router()
        url = f"https://localhost:{router.port}/"
        curl = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", "-H", "Host: web", url]
        done = subprocess.run([*curl, "--cacert", str(self.authority.cert)], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, "hello"), done.stderr)
        done = subprocess.run([*curl, "--cacert", str(self.stranger.cert)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 60, done.stderr)
        self.assertEqual(self.metric(router, "rutter_tls_handshakes_total", result="ok"), 1)

    def test_plain_http_is_told_to_use_https(self):
        router = self.router()
        answer = router.request()
        self.assertEqual(answer["status"], 400)
        self.assertIn(b"RT-E127", answer["body"])
        self.assertIn(b"https://", answer["body"])
        until(lambda: self.metric(router, "rutter_errors_total", code="RT-E127") == 1, "the error is counted")
        self.assertEqual(self.metric(router, "rutter_tls_handshakes_total", result="plain"), 1)

    def test_large_bodies_pass_both_ways(self):
        body = bytes(range(256)) * 4096

        def echo(connection):
            while True:
                _, fields = connection.head()
                data = connection.reader.body(fields, False)[0]
                connection.send(head("HTTP/1.1 200 OK", f"Content-Length: {len(data)}")).send(data)
        self.server = self.backend(echo)
        router = self.router()
        connection = http.client.HTTPSConnection("localhost", router.port, context=self.context(), timeout=20)
        self.addCleanup(connection.close)
        for _ in range(3):
            connection.request("POST", "/", body=body, headers={"Host": "web"})
            self.assertEqual(connection.getresponse().read(), body)
        self.assertEqual(self.server.connections, 1)

    def test_pipelined_requests_in_one_record_are_all_answered(self):
        router = self.router()
        with socket.create_connection(("127.0.0.1", router.port)) as plain, \
                self.context().wrap_socket(plain, server_hostname="localhost") as secure:
            secure.settimeout(20)
            padding = "X-Padding: " + "a" * 2000
            secure.sendall(head("GET / HTTP/1.1", "Host: web", padding).encode() * 20)
            text = b""
            while text.count(b"hello") < 20:
                text += secure.recv(65536)

    def test_versions_and_ciphers_are_those_of_the_configuration(self):
        router = self.router(self.listener(protocols=["TLSv1.2"], ciphers=["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]))
        with socket.create_connection(("127.0.0.1", router.port)) as plain, \
                self.context().wrap_socket(plain, server_hostname="localhost") as secure:
            self.assertEqual((secure.version(), secure.cipher()[0]), ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"))
        with self.assertRaises(ssl.SSLError):
            self.get(router, minimum_version=ssl.TLSVersion.TLSv1_3)
        until(lambda: self.metric(router, "rutter_tls_handshakes_total", result="version") == 1, "the failure is counted")

    def test_http2_is_not_on_offer(self):
        router = self.router()
        context = self.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection(("127.0.0.1", router.port)) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
            self.assertEqual(secure.selected_alpn_protocol(), "http/1.1")

    def test_who_says_nothing_keeps_nobody_out_and_is_closed(self):
        router = self.router()
        silent = [socket.create_connection(("127.0.0.1", router.port)) for _ in range(600)]
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        for one in silent:
            one.sendall(hello)
        began = time.monotonic()
        for _ in range(20):
            self.assertEqual(self.get(router), (200, b"hello"))
        self.assertLess(time.monotonic() - began, 5)
        for one in silent:
            one.settimeout(20)
            try:
                self.assertEqual(one.recv(1), b"")
            except ConnectionResetError:
                pass
            one.close()
        self.assertGreaterEqual(time.monotonic() - began, 5, "the limit of the time was what ended the last ones")
        until(lambda: self.metric(router, "rutter_connections", server="127.0.0.1") == 0, "their connections are gone")

    def test_a_client_without_the_right_certificate_stays_out(self):
        router = self.router(self.mutual())
        self.assertEqual(self.get(router, pair=self.node), (200, b"hello"))
        expired = self.authority.issue("old", validity=PAST)
        foreign = self.stranger.issue("foreign")
        for pair in (None, expired, foreign):
            with self.subTest(pair=pair), self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                self.get(router, pair=pair)
        until(lambda: self.metric(router, "rutter_tls_handshakes_total", result="client_certificate") == 3, "all three are counted")
        self.assertIn("RT-E128", router.output())

    def test_an_idle_connection_is_small(self):
        router = self.router()
        count = 400
        context = self.context()

        def connect():
            connection = http.client.HTTPSConnection("localhost", router.port, context=context, timeout=20)
            connection.request("GET", "/", headers={"Host": "web"})
            self.assertEqual(connection.getresponse().read(), b"hello")
            return connection
        warm = [connect() for _ in range(100)]
        before = router.resident_kib()
        open_ones = [connect() for _ in range(count)]
        each = (router.resident_kib() - before) / count
        for one in warm + open_ones:
            one.close()
        print(f"TLS connection, idle: {each:.1f} KiB", flush=True)
        self.assertLess(each, 40)


class Towards(Secure):
    """What is asked of endpoints."""

    def endpoint(self, pair, mutual=False):
        """A router with TLS in front of a server."""
        server = self.backend()
        return self.secured(self.mutual(pair) if mutual else self.listener(pair), names={"web": [server.address]})

    def answer(self, tls, endpoint, **kwargs):
        router = self.sending(tls, ("127.0.0.1", endpoint.port), **kwargs)
        answer = router.request()
        return router, answer["status"], answer["body"].decode()

    def refused(self, tls, endpoint, *words):
        router, status, body = self.answer(tls, endpoint)
        self.assertEqual(status, 502, body)
        for word in ("RT-E134", *words):
            self.assertIn(word, body)
        # Whoever has the answer may be quicker than the counter.
        until(lambda: self.metric(router, "rutter_errors_total", code="RT-E134") == 1, "the error is counted")
        return router

    def test_the_name_comes_from_a_capture_of_the_prefix(self):
        endpoint = self.endpoint(self.pair)
        self.assertEqual(self.answer(self.trusting(), endpoint)[1:], (200, "hello"))
        router = self.refused(self.trusting(commonName="{service}.other"), endpoint, "web.other", "(name)")
        self.assertGreater(self.metric(router, "rutter_connects_total", result="tls"), 0)

    def test_who_is_not_trusted_gets_no_request(self):
        self.refused(self.trusting(), self.endpoint(self.stranger.issue("web.test", ["DNS:web.test"])), "trusted authority", "(trust)")

    def test_an_expired_certificate_is_refused(self):
        self.refused(self.trusting(), self.endpoint(self.authority.issue("web.test", ["DNS:web.test"], PAST)), "expired", "(time)")

    def test_validation_may_be_turned_off(self):
        endpoint = self.endpoint(self.stranger.issue("whoever", validity=PAST))
        self.assertEqual(self.answer({"disableValidation": True}, endpoint)[1:], (200, "hello"))

    def test_a_name_in_the_subject_alone_is_enough(self):
        self.assertEqual(self.answer(self.trusting(), self.endpoint(self.authority.issue("web.test")))[1:], (200, "hello"))
        self.refused(self.trusting(), self.endpoint(self.authority.issue("web.test", ["DNS:other.test"])), "other.test", "(name)")

    def test_a_certificate_may_be_its_own_authority(self):
        pair = self_signed(self.directory, "web.test")
        self.assertEqual(self.answer({"commonName": "web.test", "trustCerts": [str(pair.cert)]}, self.endpoint(pair))[1:], (200, "hello"))

    def test_without_trust_certs_the_systems_count(self):
        endpoint = self.endpoint(self.pair)
        for authority, status in ((self.authority, 200), (self.stranger, 502)):
            router = self.sending({"commonName": "{service}.test"}, ("127.0.0.1", endpoint.port), env={"SSL_CERT_FILE": str(authority.cert)})
            self.assertEqual(router.request()["status"], status)

    def test_an_address_can_be_the_name(self):
        tls = self.trusting(commonName="127.0.0.1")
        self.assertEqual(self.answer(tls, self.endpoint(self.pair))[1:], (200, "hello"))

    def test_an_address_as_the_name_is_no_server_name(self):
        context, names = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
        context.load_cert_chain(str(self.pair.cert), str(self.pair.key))
        context.sni_callback = lambda _, name, __: names.append(name)

        def secure(connection):
            connection.socket = context.wrap_socket(connection.socket, server_side=True)
            connection.socket.recv(65536)
            connection.send(head("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: close"))

        address = self.backend(secure).address
        for name, sent in (("127.0.0.1", None), ("web.test", "web.test")):
            names.clear()
            self.assertEqual(self.sending(self.trusting(commonName=name), address).request()["status"], 200)
            self.assertEqual(set(names), {sent})

    def test_an_endpoint_without_tls_is_told_apart(self):
        def puzzled(connection):
            connection.socket.recv(1)
            connection.send(head("HTTP/1.1 400 Bad Request", "Content-Length: 0", "Connection: close"))
        router = self.sending(self.trusting(), self.backend(puzzled).address)
        answer = router.request()
        self.assertEqual(answer["status"], 502)
        self.assertIn(b"does not speak TLS (not_tls)", answer["body"])

    def test_without_a_name_every_request_says_what_is_missing(self):
        tls = {"trustCertsBundle": str(self.authority.cert)}
        self.refused(tls, self.endpoint(self.pair), "commonName", "(configuration)")

    def test_a_later_entry_turns_tls_off(self):
        server = self.backend()
        client = {"kind": "io.l5d.static", "configs": [{"prefix": "/", "tls": self.trusting(commonName="web.test")},
                                                       {"prefix": "/#/io.l5d.fs/web", "tls": {"enabled": False}}]}
        router = self.enterContext(Router(f"client: {json.dumps(client)}", names={"web": [server.address]}))
        self.assertEqual(router.request()["status"], 200)

    def test_a_missing_certificate_of_ours_is_said(self):
        endpoint = self.endpoint(self.pair, mutual=True)
        self.refused(self.trusting(), endpoint, "(client_certificate)")
        self.assertEqual(self.answer(self.showing(self.node), endpoint)[1:], (200, "hello"))

    def test_an_endpoint_that_says_nothing_is_given_up_within_the_request_s_time(self):
        silent = self.backend(lambda connection: time.sleep(30))
        tls = json.dumps({"tls": self.trusting(), "prefix": "/#/io.l5d.fs/{service}", "requestAttemptTimeoutMs": 500})
        router = self.enterContext(Router("client: {kind: io.l5d.static, configs: [%s]}" % tls, names={"web": [silent.address]}))
        began = time.monotonic()
        answer = router.request()
        self.assertIn(answer["status"], (502, 503), answer["body"])
        self.assertLess(time.monotonic() - began, 5)


class NodeToNode(Secure):
    def test_two_routers_show_each_other_who_they_are(self):
        heads = []
        server = self.backend(seeing(heads))
        text = 'client: {forwardClientCert: true}'
        incoming = self.secured(self.mutual(), router=text, names={"web": [server.address]})
        outgoing = self.sending(self.showing(self.node), ("127.0.0.1", incoming.port))
        with outgoing.connect() as client:
            for _ in range(5):
                self.assertEqual(client.get("/", "web", "x-forwarded-client-cert: forged").response()["status"], 200)
        shown = heads[0][1]["x-forwarded-client-cert"]
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.node.cert.read_text())).hexdigest().upper()
        subject = openssl("x509", "-in", self.node.cert, "-noout", "-subject", "-nameopt", "RFC2253").strip().removeprefix("subject=")
        self.assertEqual(shown, f'Hash={digest};SAN=spiffe://test/node-a;DNS=node-a.test;Subject="{subject}"')
        self.assertEqual(self.metric(incoming, "rutter_accepted_connections_total"), 1 + 1, "the probe of the start, and one that is kept")

    def test_without_forwarding_no_certificate_is_passed_on(self):
        heads = []
        server = self.backend(seeing(heads))
        incoming = self.secured(self.mutual(), names={"web": [server.address]})
        outgoing = self.sending(self.showing(self.node), ("127.0.0.1", incoming.port))
        with outgoing.connect() as client:
            client.get("/", "web", "x-forwarded-client-cert: forged").response()
        self.assertNotIn("x-forwarded-client-cert", heads[0][1])


class Change(Secure):
    """Certificates change while the routers run."""

    def setUp(self):
        self.server = self.backend()
        live = self.directory / self.id()
        live.mkdir()
        self.live = type(self.pair)(live / "cert.pem", live / "key.pem")
        self.live.put(self.pair)

    def serial(self, router):
        with socket.create_connection(("127.0.0.1", router.port)) as plain, self.context().wrap_socket(plain, server_hostname="localhost") as secure:
            return secure.getpeercert()["serialNumber"]

    def test_a_new_certificate_is_in_force_under_load_and_nothing_is_lost(self):
        router = self.secured(self.listener(self.live), names={"web": [self.server.address]})
        stop, errors, done = threading.Event(), [], [0]

        def load():
            context = self.context()
            while not stop.is_set():
                try:
                    connection = http.client.HTTPSConnection("localhost", router.port, context=context, timeout=20)
                    for _ in range(3):
                        connection.request("GET", "/", headers={"Host": "web"})
                        assert connection.getresponse().read() == b"hello"
                        done[0] += 1
                    connection.close()
                except Exception as error:
                    errors.append(error)
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                old = self.serial(router)
                self.live.put(self.authority.issue("web.test", ["DNS:localhost"]))
                until(lambda: self.serial(router) != old, "the new certificate is shown")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(errors, [])
        self.assertGreater(done[0], 100)
        self.assertGreaterEqual(self.metric(router, "rutter_tls_reloads_total", result="ok"), 5)

    def test_an_invalid_certificate_leaves_the_old_one_in_force_and_says_so(self):
        router = self.secured(self.listener(self.live), names={"web": [self.server.address]})
        old = self.serial(router)
        expiry = self.metric(router, "rutter_tls_certificate_expiry_timestamp_seconds")
        self.assertGreater(expiry, time.time() + 800 * 86400)
        self.live.cert.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        def rejected():
            return self.metric(router, "rutter_tls_reloads_total", result="rejected")
        until(lambda: rejected() >= 1, "it is rejected")
        self.assertIn("certificates not taken", router.output())
        self.assertEqual(self.serial(router), old)
        # A key that belongs to another certificate.
        self.live.cert.write_bytes(self.node.cert.read_bytes())
        until(lambda: rejected() >= 2, "it is rejected")
        self.assertIn("does not belong to", router.output())
        self.assertEqual(self.serial(router), old)
        self.live.put(self.authority.issue("web.test", ["DNS:localhost"], soon_over()))
        until(lambda: self.serial(router) != old, "a valid one is taken")
        self.assertLess(self.metric(router, "rutter_tls_certificate_expiry_timestamp_seconds"), time.time() + 6 * 86400)

    def test_another_authority_counts_for_the_next_handshake(self):
        trusted = self.directory / f"{self.id()}.pem"
        trusted.write_bytes(self.stranger.cert.read_bytes())
        endpoint = self.secured(self.listener(), names={"web": [self.server.address]})
        router = self.sending({"commonName": "web.test", "trustCertsBundle": str(trusted)}, ("127.0.0.1", endpoint.port))
        self.assertEqual(router.request()["status"], 502)
        trusted.write_bytes(self.authority.cert.read_bytes())
        until(lambda: router.request()["status"] == 200, "the new authority is trusted")


class Check(Secure):
    def check(self, tls):
        file = self.directory / f"{self.id()}.yaml"
        file.write_text("admin: {port: 9990}\nnamers:\n- {kind: io.l5d.fs, rootDir: %s}\nrouters:\n- protocol: http\n"
                        "  dtab: /svc => /#/io.l5d.fs;\n  servers:\n  - port: 4140\n    tls: %s\n" % (self.directory, tls))
        done = subprocess.run([str(program()), "config", "check", str(file)], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_a_key_of_another_certificate_is_found(self):
        mixed = type(self.pair)(self.pair.cert, self.node.key)
        status, said = self.check(self.listener(mixed))
        self.assertNotEqual(status, 0, said)
        self.assertIn("does not belong to the certificate", said)
        self.assertIn("9:5", said)

    def test_files_that_cannot_be_used_are_found(self):
        swapped = type(self.pair)(self.pair.key, self.pair.cert)
        status, said = self.check(self.listener(swapped))
        self.assertNotEqual(status, 0, said)
        self.assertIn("has no certificate in PEM: it has `PRIVATE KEY`", said)
        status, said = self.check(self.listener(type(self.pair)(self.directory / "none.pem", self.pair.key)))
        self.assertNotEqual(status, 0, said)
        self.assertIn("none.pem is not a file", said)

    def test_what_expires_soon_or_has_expired_is_found(self):
        for validity, words in ((soon_over(), "expires in 4 days"), (PAST, "has expired")):
            status, said = self.check(self.listener(self.authority.issue("x", validity=validity)))
            self.assertIn(words, said)
        status, said = self.check(self.listener())
        self.assertEqual((status, "warning" in said), (0, False), said)


if __name__ == "__main__":
    unittest.main()
