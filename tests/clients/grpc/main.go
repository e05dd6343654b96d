// gRPC-Go as it is, which takes https_proxy from the environment for every target that is not local:
//
//	grpc serve PLAIN_PORT TLS_PORT CERT KEY   an endpoint, without TLS and with it
//	grpc PROXY                                the checks
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	health_pb "google.golang.org/grpc/health/grpc_health_v1"
)

const limit = 20 * time.Second

func serve(plainPort, securePort, cert, key string) {
	status := health.NewServer()
	go func() {
		// Something to stream: a state that changes.
		for state := health_pb.HealthCheckResponse_SERVING; ; state = 3 - state {
			status.SetServingStatus("flips", state)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatal(err)
	}
	start := func(port string, options ...grpc.ServerOption) {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			log.Fatal(err)
		}
		server := grpc.NewServer(options...)
		health_pb.RegisterHealthServer(server, status)
		log.Fatal(server.Serve(listener))
	}
	go start(plainPort)
	start(securePort, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
}

func check(name string, wanted string, run func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	found, err := run(ctx)
	switch {
	case err != nil && strings.Contains(err.Error(), wanted):
		fmt.Printf("pass %s\n", name)
	case err != nil:
		fmt.Printf("fail %s: %v\n", name, err)
	case found != wanted:
		fmt.Printf("fail %s: found %.300q, wanted %.300q\n", name, found, wanted)
	default:
		fmt.Printf("pass %s\n", name)
	}
}

func to(target string, creds credentials.TransportCredentials, call func(context.Context, health_pb.HealthClient) (string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
		if err != nil {
			return "", err
		}
		defer connection.Close()
		return call(ctx, health_pb.NewHealthClient(connection))
	}
}

func unary(ctx context.Context, client health_pb.HealthClient) (string, error) {
	found := ""
	for range 3 {
		answer, err := client.Check(ctx, &health_pb.HealthCheckRequest{})
		if err != nil {
			return "", err
		}
		found += answer.Status.String() + " "
	}
	return found, nil
}

func stream(ctx context.Context, client health_pb.HealthClient) (string, error) {
	watch, err := client.Watch(ctx, &health_pb.HealthCheckRequest{Service: "flips"})
	if err != nil {
		return "", err
	}
	messages := 0
	for messages < 10 {
		if _, err := watch.Recv(); err != nil {
			return "", err
		}
		messages++
	}
	return fmt.Sprint(messages), nil
}

func main() {
	if len(os.Args) == 6 {
		serve(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	}
	secure, err := credentials.NewClientTLSFromFile(os.Getenv("SSL_CERT_FILE"), "web")
	if err != nil {
		log.Fatal(err)
	}
	plain := insecure.NewCredentials()
	check("grpc-tls", "SERVING SERVING SERVING ", to("grpc-tls:443", secure, unary))
	check("grpc-plain", "SERVING SERVING SERVING ", to("grpc-plain:443", plain, unary))
	check("grpc-stream", "10", to("grpc-tls:443", secure, stream))
	check("connect-unbound", "502 Bad Gateway", to("nobody:443", secure, unary))
	check("connect-port", "403 Forbidden", to("web:8443", secure, unary))
}
