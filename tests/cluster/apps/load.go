package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The longest that a request may take, beyond the time that a stream lasts by itself. A request that is still without
// its answer then is lost.
const patience = 30 * time.Second

// A kind of request: what is sent, and how often.
type kind struct {
	Name      string  `json:"name"`
	URL       string  `json:"url"`
	PerSecond float64 `json:"perSecond"`
	// Length of the body of a POST; 0 is a GET.
	Post int `json:"post"`
	// A connection of its own for each request.
	Close bool `json:"close"`
	// Length of the stream that is asked for; 0 is a plain request.
	StreamSeconds int `json:"streamSeconds"`
}

// A record is the account of one request. Times are Unix milliseconds.
type record struct {
	Kind  string  `json:"kind"`
	ID    string  `json:"id"`
	Begun int64   `json:"begun"`
	Took  float64 `json:"tookMs"`
	// Empty when the whole of the right answer came.
	Lost string `json:"lost,omitempty"`
	// Pod that answered, and its node.
	Pod  string `json:"pod,omitempty"`
	Node string `json:"node,omitempty"`
	// Times that the client library itself sent the request anew, on another connection.
	Again int `json:"again,omitempty"`
	// Whether the connection had been used before.
	Reused bool `json:"reused,omitempty"`
}

// A generator starts requests at a steady rate, whatever becomes of those before: a slow or dead service does not slow
// it down.
type generator struct {
	sync.Mutex
	node string
	// Tells this generator's requests from those of the one before, on the same node.
	era     string
	records []record
	open    map[string]int
	stops   []chan struct{}
	serial  atomic.Int64
	reuse   http.Client
	fresh   http.Client
}

func load() {
	// Connections are reused as far as possible: as many are kept as there are requests at a time.
	keep := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Hour}
	once := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	g := &generator{
		node:  os.Getenv("NODE_NAME"),
		era:   time.Now().Format("150405"),
		open:  map[string]int{},
		reuse: http.Client{Transport: keep},
		fresh: http.Client{Transport: once},
	}
	http.HandleFunc("POST /start", g.start)
	http.HandleFunc("POST /stop", g.stop)
	http.HandleFunc("GET /report", g.report)
	http.HandleFunc("GET /fetch", g.fetch)
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	log.Fatal(http.ListenAndServe(":8090", nil))
}

func (g *generator) start(w http.ResponseWriter, r *http.Request) {
	var kinds []kind
	if err := json.NewDecoder(r.Body).Decode(&kinds); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g.Lock()
	defer g.Unlock()
	for _, k := range kinds {
		stop := make(chan struct{})
		g.stops = append(g.stops, stop)
		go g.run(k, stop)
	}
}

// stop begins no further requests; what is under way goes on.
func (g *generator) stop(http.ResponseWriter, *http.Request) {
	g.Lock()
	defer g.Unlock()
	for _, stop := range g.stops {
		close(stop)
	}
	g.stops = nil
}

func (g *generator) run(k kind, stop chan struct{}) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / k.PerSecond))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			go g.send(k)
		}
	}
}

func (g *generator) send(k kind) {
	id := fmt.Sprintf("%s-%s-%s-%d", g.node, g.era, k.Name, g.serial.Add(1))
	g.Lock()
	g.open[k.Name]++
	g.Unlock()
	begun := time.Now()
	account := record{Kind: k.Name, ID: id, Begun: begun.UnixMilli()}
	if err := g.exchange(k, id, &account); err != nil {
		account.Lost = err.Error()
	}
	account.Took = float64(time.Since(begun).Microseconds()) / 1000
	g.Lock()
	g.open[k.Name]--
	g.records = append(g.records, account)
	g.Unlock()
}

// exchange sends one request and reads the whole answer; an error says what was not as it should be.
func (g *generator) exchange(k kind, id string, account *record) error {
	method, url, body := http.MethodGet, k.URL+"?id="+id, io.Reader(nil)
	if k.Post > 0 {
		method, body = http.MethodPost, strings.NewReader(strings.Repeat("x", k.Post))
	}
	limit := patience
	if k.StreamSeconds > 0 {
		url += "&seconds=" + strconv.Itoa(k.StreamSeconds)
		limit += time.Duration(k.StreamSeconds) * time.Second
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	if k.Post > 0 {
		// Without this the library would repeat the request by itself where it thinks that it may.
		request.GetBody = nil
	}
	connections := 0
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { connections++; account.Reused = info.Reused },
	}))
	client := g.reuse
	if k.Close {
		client = g.fresh
	}
	client.Timeout = limit
	response, err := client.Do(request)
	account.Again = max(0, connections-1)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	account.Pod, account.Node = response.Header.Get("X-Pod"), response.Header.Get("X-Node")
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 2000))
		return fmt.Errorf("status %d: %s", response.StatusCode, text)
	}
	if k.StreamSeconds > 0 {
		return ticks(response.Body, k.StreamSeconds)
	}
	var from answer
	if err := json.NewDecoder(response.Body).Decode(&from); err != nil {
		return fmt.Errorf("the answer's body: %w", err)
	}
	if from.Length != int64(k.Post) {
		return fmt.Errorf("the application got %d bytes of %d", from.Length, k.Post)
	}
	// To the end, so that the connection can be used again.
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// ticks reads a stream; an error unless it is whole.
func ticks(body io.Reader, seconds int) error {
	lines := bufio.NewScanner(body)
	seen := 0
	for lines.Scan() {
		if lines.Text() == "end" {
			if seen != seconds {
				return fmt.Errorf("the stream ended after %d of %d lines", seen, seconds)
			}
			return nil
		}
		seen++
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream broke after %d of %d lines: %w", seen, seconds, err)
	}
	return fmt.Errorf("the stream was cut after %d of %d lines", seen, seconds)
}

// What is reported as slow, streams aside, and how many of them at most.
const (
	slowMs   = 1500
	mostSlow = 40
)

// What became of the requests of one kind.
type sum struct {
	Begun int     `json:"begun"`
	Lost  int     `json:"lost"`
	Again int     `json:"again"`
	P50   float64 `json:"p50Ms"`
	P99   float64 `json:"p99Ms"`
	Max   float64 `json:"maxMs"`
}

// report accounts for the requests that ended from `from` on and before `to` (Unix milliseconds).
func (g *generator) report(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	to, err := strconv.ParseInt(r.URL.Query().Get("to"), 10, 64)
	if err != nil {
		to = 1 << 62
	}
	g.Lock()
	defer g.Unlock()
	sums, took, nodes, lost, slow := map[string]*sum{}, map[string][]float64{}, map[string]int{}, []record{}, []record{}
	for _, one := range g.records {
		ended := one.Begun + int64(one.Took)
		if ended < from || ended >= to {
			continue
		}
		of := sums[one.Kind]
		if of == nil {
			of = &sum{}
			sums[one.Kind] = of
		}
		of.Begun++
		of.Again += one.Again
		if one.Lost != "" {
			of.Lost++
			lost = append(lost, one)
		} else {
			took[one.Kind] = append(took[one.Kind], one.Took)
			if one.Took > slowMs && one.Kind != "stream" && len(slow) < mostSlow {
				slow = append(slow, one)
			}
		}
		if one.Node != "" {
			nodes[one.Node]++
		}
	}
	for name, all := range took {
		sort.Float64s(all)
		sums[name].P50, sums[name].P99, sums[name].Max = all[len(all)/2], all[len(all)*99/100], all[len(all)-1]
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kinds": sums, "lost": lost, "slow": slow, "answeredOn": nodes, "open": g.open, "node": g.node})
}

// fetch makes one request as any program in the pod would, and tells all of the answer.
func (g *generator) fetch(w http.ResponseWriter, r *http.Request) {
	request, err := http.NewRequest(http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, header := range r.URL.Query()["header"] {
		if name, value, found := strings.Cut(header, ":"); found {
			request.Header.Set(name, strings.TrimSpace(value))
		}
	}
	client := g.fresh
	client.Timeout = patience
	response, err := client.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": response.StatusCode, "headers": response.Header, "body": string(body)})
}
