{{/* The configuration file: written from the values, or checked when it was pasted. */}}

{{/* What the ConfigMap holds. */}}
{{- define "rutter.config" -}}
{{- if .Values.rawConfig -}}
{{- .Values.rawConfig -}}
{{- else -}}
# Written by the chart {{ .Chart.Name }} {{ .Chart.Version }} from the values of release {{ .Release.Name }}.
{{ include "rutter.written" . }}
{{- end -}}
{{- end -}}

{{- define "rutter.written" -}}
{{- $values := .Values.config -}}
{{- $listen := dict "ip" .Values.listenAddress -}}
{{- $namers := $values.namers -}}
{{- $telemetry := $values.telemetry | default list -}}
{{- with .Values.tracing.zipkin -}}
  {{- if .enabled -}}
    {{- $telemetry = append $telemetry (dict "kind" "io.l5d.zipkin" "host" .host "port" .port "sampleRate" .sampleRate) -}}
  {{- end -}}
{{- end -}}
{{- $hop := dict "kind" "io.l5d.k8s.daemonset" "namespace" .Release.Namespace "service" (include "rutter.fullname" .) "port" "incoming" -}}
{{- $local := dict "kind" "io.l5d.k8s.localnode" -}}
{{- if .Values.hostNetwork -}}
  {{- $hop = set $hop "hostNetwork" true -}}
  {{- $local = set $local "hostNetwork" true -}}
{{- end -}}
{{- $outgoing := dict "protocol" "http" "label" "outgoing"
      "interpreter" (include "rutter.interpreter" (dict "root" $ "transformers" (list $hop)) | fromYaml)
      "servers" (list (merge (dict "port" .Values.ports.outgoing) $listen $values.outgoingServer)) -}}
{{- $incoming := dict "protocol" "http" "label" "incoming"
      "interpreter" (include "rutter.interpreter" (dict "root" $ "transformers" (list $local)) | fromYaml)
      "servers" (list (merge (dict "port" .Values.ports.incoming) $listen $values.incomingServer)) -}}
{{- /* What a router says itself counts before what the store says: with a store it says nothing. */ -}}
{{- if not .Values.store.enabled -}}
  {{- $_ := set $outgoing "dtab" .Values.dtab -}}
  {{- $_ := set $incoming "dtab" .Values.dtab -}}
{{- end -}}
{{- /* Whole keys are taken over: a list of transformers that is given is the list. */ -}}
{{- range $key, $value := $values.outgoing }}{{ $_ := set $outgoing $key $value }}{{ end -}}
{{- range $key, $value := $values.incoming }}{{ $_ := set $incoming $key $value }}{{ end -}}
{{- $grace := dict "shutdownGraceMs" (mul .Values.drain.graceSeconds 1000) -}}
{{- $file := dict
      "admin" (merge (dict "port" .Values.ports.admin) $listen (omit $values.admin "shutdownGraceMs") $grace)
      "namers" $namers "telemetry" $telemetry
      "routers" (concat (list $outgoing $incoming) ($values.routers | default list)) -}}
{{- with $values.workers }}{{ $_ := set $file "workers" . }}{{ end -}}
{{- if .Values.stateDir.enabled }}{{ $_ := set $file "stateDir" .Values.stateDir.mountPath }}{{ end -}}
{{- toYaml $file -}}
{{- end -}}

{{/* What a running router does not take over from a changed file. */}}
{{- define "rutter.needsRestart" -}}
{{- $file := include "rutter.config" . | fromYaml -}}
{{- toJson (dict "workers" $file.workers "stateDir" $file.stateDir "admin" (pick ($file.admin | default dict) "ip" "port")) -}}
{{- end -}}

{{/* Seconds from SIGTERM until what still runs is cut: the pasted file knows better than the values. */}}
{{- define "rutter.graceSeconds" -}}
{{- if .Values.rawConfig -}}
  {{- $admin := (fromYaml .Values.rawConfig).admin | default dict -}}
  {{- divf ($admin.shutdownGraceMs | default 10000) 1000 | ceil | int -}}
{{- else -}}
  {{- .Values.drain.graceSeconds -}}
{{- end -}}
{{- end -}}

{{- define "rutter.terminationGrace" -}}
{{- .Values.terminationGracePeriodSeconds | default (add .Values.drain.waitSeconds (include "rutter.graceSeconds" . | int) 5) -}}
{{- end -}}

{{/* Whether a namer or transformer asks a `kubectl proxy` in the pod, and there is none. */}}
{{- define "rutter.asksProxy" -}}
{{- if and .Values.rawConfig (eq .Values.kubernetesApi "direct") -}}true{{- end -}}
{{- end -}}

{{/* Ends the rendering when values contradict each other, with the keys and what to set. */}}
{{- define "rutter.check" -}}
{{- if and .Values.rawConfig .Values.existingConfigMap.name -}}
  {{- fail "rawConfig and existingConfigMap.name are both set: the configuration has one source, empty one of them" -}}
{{- end -}}
{{- if and (not .Values.rawConfig) (not .Values.existingConfigMap.name) (eq (int .Values.ports.incoming) 0) -}}
  {{- fail "ports.incoming is 0: the configuration that the chart writes has a router `incoming`; give it a port" -}}
{{- end -}}
{{- include "rutter.checkPorts" . -}}
{{- include "rutter.checkRollout" . -}}
{{- if and (ne .Values.rbac.scope "namespaces") .Values.rbac.namespaces -}}
  {{- fail "rbac.namespaces is set, and rbac.scope is `cluster`, which gives the right to all of them: set rbac.scope to `namespaces`" -}}
{{- end -}}
{{- if and .Values.hostIP (ne .Values.reach "hostPort") -}}
  {{- fail (printf "hostIP is set, and reach is `%s`, which opens no host port: empty hostIP, or set reach to `hostPort`" .Values.reach) -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
  {{- fail "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true: every router would be counted twice; keep one" -}}
{{- end -}}
{{- if and (ne .Values.metrics.path "/metrics") (or .Values.metrics.prometheusRule.enabled .Values.metrics.dashboards.enabled) -}}
  {{- fail (printf "metrics.path is %s, and the alerts and dashboards ask for the names of /metrics: set metrics.path to /metrics, or metrics.prometheusRule.enabled and metrics.dashboards.enabled to false" .Values.metrics.path) -}}
{{- end -}}
{{- if and .Values.rawConfig .Values.rawConfigCheck -}}
  {{- include "rutter.checkRaw" . -}}
{{- end -}}
{{- end -}}

{{- define "rutter.checkPorts" -}}
{{- $seen := dict -}}
{{- $ports := list (dict "name" "ports.outgoing" "port" .Values.ports.outgoing) (dict "name" "ports.admin" "port" .Values.ports.admin) -}}
{{- if .Values.ports.incoming -}}
  {{- $ports = append $ports (dict "name" "ports.incoming" "port" .Values.ports.incoming) -}}
{{- end -}}
{{- range .Values.ports.extra -}}
  {{- if has .name (list "outgoing" "incoming" "admin") -}}
    {{- fail (printf "ports.extra: the name `%s` is taken by ports.%s: use another one" .name .name) -}}
  {{- end -}}
  {{- $ports = append $ports (dict "name" (printf "ports.extra `%s`" .name) "port" .port) -}}
{{- end -}}
{{- range $ports -}}
  {{- $port := toString .port -}}
  {{- if hasKey $seen $port -}}
    {{- fail (printf "%s and %s are both %s: every listener needs a port of its own" (get $seen $port) .name $port) -}}
  {{- end -}}
  {{- $_ := set $seen $port .name -}}
{{- end -}}
{{- end -}}

{{- define "rutter.checkRollout" -}}
{{- $surge := dig "rollingUpdate" "maxSurge" 0 .Values.updateStrategy | toString -}}
{{- if and (not (has $surge (list "0" "0%"))) (or (eq .Values.reach "hostPort") .Values.hostNetwork) -}}
  {{- fail (printf "updateStrategy.rollingUpdate.maxSurge is %s: two pods cannot have the same port of a node, the second would wait for ever; leave it out, or set reach to `nodeLocalService` and hostNetwork to false" $surge) -}}
{{- end -}}
{{- if and (eq .Values.reach "nodeLocalService") (eq .Values.service.clusterIP "None") -}}
  {{- fail "service.clusterIP is None: reach `nodeLocalService` needs an address of the Service" -}}
{{- end -}}
{{- with .Values.terminationGracePeriodSeconds -}}
  {{- $need := add $.Values.drain.waitSeconds (include "rutter.graceSeconds" $ | int) -}}
  {{- if lt (int .) (int $need) -}}
    {{- fail (printf "terminationGracePeriodSeconds is %d, and the drain takes up to %d s (drain.waitSeconds and drain.graceSeconds, or admin.shutdownGraceMs of rawConfig): the kubelet would cut requests; set %d or more, or 0" (int .) $need $need) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* A pasted file has to fit the ports, the Service and the probes of this release. */}}
{{- define "rutter.checkRaw" -}}
{{- $off := "; rawConfigCheck: false turns this check off" -}}
{{- $file := fromYaml .Values.rawConfig -}}
{{- if hasKey $file "Error" -}}
  {{- fail (printf "rawConfig is not a YAML mapping: %s" $file.Error) -}}
{{- end -}}
{{- if not (kindIs "slice" $file.routers) -}}
  {{- fail (printf "rawConfig has no list `routers`: paste the whole file, for example with --set-file rawConfig=config.yaml%s" $off) -}}
{{- end -}}
{{- $loopback := list "127.0.0.1" "::1" -}}
{{- $open := list -}}
{{- $closed := list -}}
{{- range $router := $file.routers -}}
  {{- range $server := $router.servers | default list -}}
    {{- $port := $server.port | default 4140 | int -}}
    {{- if has ($server.ip | default "127.0.0.1") $loopback -}}
      {{- $closed = append $closed $port -}}
    {{- else -}}
      {{- $open = append $open $port -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $key := list "outgoing" "incoming" -}}
  {{- $port := get $.Values.ports $key | int -}}
  {{- if and $port (not (has $port $open)) -}}
    {{- if has $port $closed -}}
      {{- fail (printf "rawConfig: the server on port %d listens on 127.0.0.1 only, where nobody outside of the pod reaches it: add `ip: 0.0.0.0` to it%s" $port $off) -}}
    {{- end -}}
    {{- $hint := ternary ", or to 0 when there is none" "" (eq $key "incoming") -}}
    {{- fail (printf "rawConfig: no server listens on port %d, which is ports.%s; its servers are on %s: set ports.%s to the right one%s%s" $port $key ($open | join ", " | default "no port that is open to others") $key $hint $off) -}}
  {{- end -}}
{{- end -}}
{{- $admin := $file.admin | default dict -}}
{{- $adminPort := $admin.port | default 9990 | int -}}
{{- if ne $adminPort (int .Values.ports.admin) -}}
  {{- fail (printf "rawConfig: admin.port is %d, and ports.admin %d: set ports.admin to %d%s" $adminPort (int .Values.ports.admin) $adminPort $off) -}}
{{- end -}}
{{- if has ($admin.ip | default "127.0.0.1") $loopback -}}
  {{- fail (printf "rawConfig: the admin port listens on 127.0.0.1 only, where the kubelet's probes do not reach it: write `admin: {ip: 0.0.0.0, port: %d}`%s" $adminPort $off) -}}
{{- end -}}
{{- range $router := $file.routers -}}
  {{- range $transformer := dig "interpreter" "transformers" list $router -}}
    {{- if eq ($transformer.kind | default "") "io.l5d.k8s.daemonset" -}}
      {{- include "rutter.checkHop" (dict "root" $ "router" ($router.label | default "http") "transformer" $transformer "off" $off) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The transformer finds the other nodes' routers by a Service: it has to be this release's. */}}
{{- define "rutter.checkHop" -}}
{{- $want := printf "%s/%s" .root.Release.Namespace (include "rutter.fullname" .root) -}}
{{- $have := printf "%s/%s" .transformer.namespace .transformer.service -}}
{{- if ne $want $have -}}
  {{- fail (printf "rawConfig: router `%s` finds the other nodes' routers by Service %s, and this release's is %s: install with `--namespace %s --set fullnameOverride=%s`, or change the transformer io.l5d.k8s.daemonset%s" .router $have $want .transformer.namespace .transformer.service .off) -}}
{{- end -}}
{{- $names := list "outgoing" "incoming" "admin" -}}
{{- range .root.Values.ports.extra }}{{ $names = append $names .name }}{{ end -}}
{{- if not (has (toString .transformer.port) $names) -}}
  {{- fail (printf "rawConfig: router `%s` sends to the port `%s` of Service %s, which has %s: write `port: incoming`, or add it to ports.extra%s" .router (toString .transformer.port) $want (join ", " $names) .off) -}}
{{- end -}}
{{- end -}}
