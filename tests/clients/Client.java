import java.io.ByteArrayInputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.Callable;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Java's HttpClient with a ProxySelector; HTTP/2 preferred, as is its default, so that it asks for h2c on plain connections. */
public class Client {
    static HttpClient client;

    static HttpResponse<String> send(String url, String method, BodyPublisher body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).method(method, body).timeout(Duration.ofSeconds(20)).build();
        return client.send(request, BodyHandlers.ofString());
    }

    static HttpResponse<String> get(String url) throws Exception {
        return send(url, "GET", BodyPublishers.noBody());
    }

    static String of(HttpResponse<String> answer, String... names) {
        StringBuilder text = new StringBuilder(answer.statusCode() + " " + answer.body());
        for (String name : names) {
            text.append(' ').append(answer.headers().firstValue(name).orElse("-"));
        }
        return text.toString();
    }

    static void check(String name, String wanted, Callable<String> run) {
        try {
            String found = run.call();
            System.out.println(found.equals(wanted) ? "pass " + name : "fail " + name + ": found " + found.replace('\n', ' ') + ", wanted " + wanted);
        } catch (Exception error) {
            System.out.println("fail " + name + ": " + error);
        }
    }

    /** The status with which CONNECT was refused: an answer in some versions, the text of an exception in others. */
    static String tunnel(String url) throws Exception {
        try {
            return String.valueOf(get(url).statusCode());
        } catch (IOException error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                for (String status : new String[] {"403", "502"}) {
                    if (String.valueOf(cause.getMessage()).contains(status)) {
                        return status;
                    }
                }
            }
            throw error;
        }
    }

    /** Trusts the certificates of this file alone. */
    static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (FileInputStream in = new FileInputStream(file)) {
            store.setCertificateEntry("test", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, factory.getTrustManagers(), null);
        return context;
    }

    public static void main(String[] args) throws Exception {
        URI proxy = URI.create(args[0]);
        ProxySelector selector = ProxySelector.of(new InetSocketAddress(proxy.getHost(), proxy.getPort()));
        client = HttpClient.newBuilder().sslContext(trusting(System.getenv("SSL_CERT_FILE"))).proxy(selector).connectTimeout(Duration.ofSeconds(20)).build();
        String web = "http://web";

        check("get", "200 hello", () -> of(get(web + "/hello")));
        check("head", "200  5", () -> of(send(web + "/hello", "HEAD", BodyPublishers.noBody()), "content-length"));
        check("not-found", "404 no such page", () -> of(get(web + "/missing")));
        check("post", "200 abc length", () -> of(send(web + "/echo", "POST", BodyPublishers.ofString("abc")), "x-framing"));
        check("upload-chunked", "200 onetwo chunked", () ->
            of(send(web + "/echo", "POST", BodyPublishers.ofInputStream(() -> new ByteArrayInputStream("onetwo".getBytes()))), "x-framing"));
        check("chunked-response", "200 onetwothree", () -> of(get(web + "/chunked")));
        check("large", "true", () -> {
            byte[] data = new byte[2_000_000];
            new Random().nextBytes(data);
            HttpRequest request = HttpRequest.newBuilder(URI.create(web + "/echo")).expectContinue(true)
                .POST(BodyPublishers.ofByteArray(data)).timeout(Duration.ofSeconds(20)).build();
            return String.valueOf(Arrays.equals(data, client.send(request, BodyHandlers.ofByteArray()).body()));
        });
        // What connections it uses this client does not tell; that requests go on one after another it does.
        check("keep-alive", "200 hello|200 onetwothree|200 hello", () ->
            of(get(web + "/hello")) + "|" + of(get(web + "/chunked")) + "|" + of(get(web + "/hello")));
        // URI takes none of the odd characters; an encoded one must come as it was sent.
        check("odd-query", "200 a=%7C%5e&b=http://c/d", () -> of(get(web + "/query?a=%7C%5e&b=http://c/d")));
        check("unbound", "502 true|200 hello", () -> {
            HttpResponse<String> answer = get("http://nobody/");
            boolean coded = answer.headers().firstValue("l5d-err").orElse("").contains("RT-E101");
            return answer.statusCode() + " " + coded + "|" + of(get(web + "/hello"));
        });
        check("connect-unbound", "502", () -> tunnel("https://nobody/"));
        check("connect-port", "403", () -> tunnel("https://web:8443/hello"));
        check("https", "200 hello|200 hello", () -> of(get("https://web/hello")) + "|" + of(get("https://web/hello")));
        System.exit(0);
    }
}
