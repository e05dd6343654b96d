package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What an application answers: who it is, and what it saw.
type answer struct {
	App    string          `json:"app"`
	Pod    string          `json:"pod"`
	Node   string          `json:"node"`
	Trace  string          `json:"trace,omitempty"`
	Length int64           `json:"length"`
	Called json.RawMessage `json:"called,omitempty"`
}

// app serves until SIGTERM, then finishes what it has begun, as a well-behaved application does.
//
//	GET  /                   who answered; with CALLS set, after calling that URL
//	POST /?id=ID             notes ID in the ledger before anything else
//	GET  /stream?seconds=N   a line a second
//	GET  /healthz            readiness
func app() {
	me := answer{App: os.Getenv("APP"), Pod: os.Getenv("POD_NAME"), Node: os.Getenv("NODE_NAME")}
	ledger := openLedger(me.Pod)
	calls := os.Getenv("CALLS")

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply := me
		reply.Trace = r.Header.Get("l5d-ctx-trace")
		if r.Method == http.MethodPost {
			ledger.note(r.URL.Query().Get("id"))
		}
		reply.Length, _ = io.Copy(io.Discard, r.Body)
		if calls != "" {
			status, body := call(r, calls)
			if status != http.StatusOK {
				http.Error(w, fmt.Sprintf("%s answered %d: %s", calls, status, body), http.StatusBadGateway)
				return
			}
			reply.Called = body
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(reply)
	})
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })

	signed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", me.Pod)
		w.Header().Set("X-Node", me.Node)
		mux.ServeHTTP(w, r)
	})
	server := &http.Server{Addr: ":8080", Handler: signed}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		<-term
		log.Print("finishing what has begun")
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-ended
}

// call makes the call that an application makes because it was called: through the proxy of its environment, and with
// the context headers passed on.
func call(r *http.Request, url string) (int, []byte) {
	onward, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, []byte(err.Error())
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "L5d-Ctx-") {
			onward.Header[name] = values
		}
	}
	response, err := http.DefaultClient.Do(onward)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return response.StatusCode, body
}

func stream(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.Atoi(r.URL.Query().Get("seconds"))
	if err != nil {
		http.Error(w, "seconds has to be a number", http.StatusBadRequest)
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; n <= seconds; n++ {
		fmt.Fprintf(w, "tick %d\n", n)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
	fmt.Fprintln(w, "end")
}

// A ledger outlives its pod: a file on the node with one line for each POST that arrived.
type ledger struct {
	sync.Mutex
	file *os.File
}

func openLedger(pod string) *ledger {
	directory := os.Getenv("LEDGER")
	if directory == "" {
		return &ledger{}
	}
	file, err := os.OpenFile(filepath.Join(directory, pod), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	return &ledger{file: file}
}

func (l *ledger) note(id string) {
	if l.file == nil {
		return
	}
	l.Lock()
	defer l.Unlock()
	fmt.Fprintln(l.file, id)
}
