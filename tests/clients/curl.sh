# curl, which takes http_proxy from the environment.
web=http://web

# check NAME FOUND WANTED
check() {
    if [ "$2" = "$3" ]; then echo "pass $1"; else echo "fail $1: found $(printf %s "$2" | head -c 200 | tr '\n' ' '), wanted $3"; fi
}

fetch() { curl --silent --show-error --max-time 20 "$@" 2>&1; }

check get "$(fetch -w ' %{http_code}' $web/hello)" "hello 200"
check head "$(fetch --head -o /dev/null -w '%{http_code} %header{content-length} %{size_download}' $web/hello)" "200 5 0"
check not-found "$(fetch -w ' %{http_code}' $web/missing)" "no such page 404"
check post "$(fetch --data abc -w ' %{http_code} %header{x-framing}' $web/echo)" "abc 200 length"
check upload-chunked "$(printf 'from a pipe' | fetch --upload-file - -w ' %{http_code} %header{x-framing}' $web/echo)" "from a pipe 200 chunked"
check chunked-response "$(fetch $web/chunked)" "onetwothree"

head -c 2000000 /dev/urandom > sent
fetch -H 'Expect: 100-continue' --data-binary @sent -o got $web/echo
if cmp -s sent got; then echo "pass large"; else echo "fail large: $(wc -c < got) bytes came back"; fi

check keep-alive "$(fetch -o /dev/null -o /dev/null -o /dev/null -w '%{http_code}/%{num_connects} ' $web/hello $web/chunked $web/hello)" \
    "200/1 200/0 200/0 "
check odd-query "$(fetch --globoff "$web/query?a=|^{}[]\`\"<>&b=http://c/d")" "a=|^{}[]\`\"<>&b=http://c/d"

unbound=$(fetch -o /dev/null -o /dev/null -w '%{http_code} %header{l5d-err} %{num_connects};' http://nobody/ $web/hello)
case $unbound in
"502 "*RT-E101*" 1;200  0;") echo "pass unbound" ;;
*) echo "fail unbound: $unbound" ;;
esac

# With --proxytunnel, as for https.
check connect-unbound "$(fetch --proxytunnel -o /dev/null -w '%{http_connect}' http://nobody:443/ | tail -c 3)" 502
check connect-port "$(fetch --proxytunnel -o /dev/null -w '%{http_connect}' $web:8443/hello | tail -c 3)" 403
check https "$(fetch --cacert "$SSL_CERT_FILE" -w ' %{http_code}/%{num_connects} ' https://web/hello https://web/hello)" "hello 200/1 hello 200/0 "
