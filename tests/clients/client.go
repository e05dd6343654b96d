// Go's net/http, which takes http_proxy from the environment.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"
)

const web = "http://web"

var client = &http.Client{Timeout: 20 * time.Second}

type answer struct {
	status int
	body   string
	header http.Header
	reused bool
}

func send(request *http.Request, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	var got answer
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { got.reused = info.Reused }}
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	got.status, got.body, got.header = response.StatusCode, string(body), response.Header
	return got, err
}

func get(url string) (answer, error) { return send(http.NewRequest("GET", url, nil)) }

func check(name string, run func() (found, wanted string, err error)) {
	found, wanted, err := run()
	switch {
	case err != nil:
		fmt.Printf("fail %s: %v\n", name, err)
	case found != wanted:
		fmt.Printf("fail %s: found %.300q, wanted %.300q\n", name, found, wanted)
	default:
		fmt.Printf("pass %s\n", name)
	}
}

// What a proxy's refusal of CONNECT looks like: its reason, as the error.
func tunnel(url, wanted string) func() (string, string, error) {
	return func() (string, string, error) {
		got, err := get(url)
		if err == nil {
			return fmt.Sprint(got.status), wanted, nil
		}
		if strings.Contains(err.Error(), wanted) {
			return wanted, wanted, nil
		}
		return err.Error(), wanted, nil
	}
}

func main() {
	check("get", func() (string, string, error) {
		got, err := get(web + "/hello")
		return fmt.Sprint(got.status, got.body), fmt.Sprint(200, "hello"), err
	})
	check("head", func() (string, string, error) {
		got, err := send(http.NewRequest("HEAD", web+"/hello", nil))
		return fmt.Sprint(got.status, got.body, got.header.Get("Content-Length")), fmt.Sprint(200, "", "5"), err
	})
	check("not-found", func() (string, string, error) {
		got, err := get(web + "/missing")
		return fmt.Sprint(got.status, got.body), fmt.Sprint(404, "no such page"), err
	})
	check("post", func() (string, string, error) {
		got, err := send(http.NewRequest("POST", web+"/echo", strings.NewReader("abc")))
		return fmt.Sprint(got.status, got.body, got.header.Get("X-Framing")), fmt.Sprint(200, "abc", "length"), err
	})
	check("upload-chunked", func() (string, string, error) {
		got, err := send(http.NewRequest("POST", web+"/echo", io.MultiReader(strings.NewReader("one"), strings.NewReader("two"))))
		return fmt.Sprint(got.status, got.body, got.header.Get("X-Framing")), fmt.Sprint(200, "onetwo", "chunked"), err
	})
	check("chunked-response", func() (string, string, error) {
		got, err := get(web + "/chunked")
		return got.body, "onetwothree", err
	})
	check("large", func() (string, string, error) {
		data := make([]byte, 2_000_000)
		rand.Read(data)
		got, err := send(http.NewRequest("POST", web+"/echo", bytes.NewReader(data)))
		return fmt.Sprint(got.body == string(data)), "true", err
	})
	check("keep-alive", func() (string, string, error) {
		client.CloseIdleConnections()
		found := ""
		for _, path := range []string{"/hello", "/chunked", "/hello"} {
			got, err := get(web + path)
			if err != nil {
				return "", "", err
			}
			found += fmt.Sprintf("%d %v,", got.status, got.reused)
		}
		return found, "200 false,200 true,200 true,", nil
	})
	check("odd-query", func() (string, string, error) {
		query := "a=|^{}[]`\"<>&b=http://c/d"
		request, err := http.NewRequest("GET", web+"/query", nil)
		if err == nil {
			request.URL.RawQuery = query
		}
		got, err := send(request, err)
		return got.body, query, err
	})
	check("unbound", func() (string, string, error) {
		got, err := get("http://nobody/")
		if err != nil {
			return "", "", err
		}
		// Go keeps connections to a proxy by the target's host: the same host again must find it open.
		again, err := get("http://nobody/")
		coded := strings.Contains(got.header.Get("L5d-Err"), "RT-E101")
		return fmt.Sprint(got.status, coded, again.status, again.reused), fmt.Sprint(502, true, 502, true), err
	})
	check("connect-unbound", tunnel("https://nobody/", http.StatusText(502)))
	check("connect-port", tunnel("https://web:8443/hello", http.StatusText(403)))
	check("https", func() (string, string, error) {
		got, err := get("https://web/hello")
		if err != nil {
			return "", "", err
		}
		again, err := get("https://web/hello")
		return fmt.Sprint(got.status, got.body, again.body, again.reused), fmt.Sprint(200, "hello", "hello", true), err
	})
}
