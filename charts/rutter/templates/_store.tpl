{{/* The store of dtabs: its names, its file, and what routers need to ask it. */}}

{{- define "rutter.storeName" -}}
{{- printf "%s-store" (include "rutter.fullname" . | trunc 57 | trimSuffix "-") -}}
{{- end -}}

{{/* Its replicas, each with its own address: routers report to all of them. */}}
{{- define "rutter.storeReplicas" -}}
{{- printf "%s-store-replicas" (include "rutter.fullname" . | trunc 48 | trimSuffix "-") -}}
{{- end -}}

{{- define "rutter.storeSelector" -}}
{{- include "rutter.selector" . | replace "component: router" "component: store" -}}
{{- end -}}

{{- define "rutter.storeMetadata" -}}
{{- include "rutter.metadata" . | replace "app.kubernetes.io/component: router" "app.kubernetes.io/component: store" -}}
{{- end -}}

{{- define "rutter.storeAccount" -}}
{{- .Values.store.serviceAccount.name | default (include "rutter.storeName" .) -}}
{{- end -}}

{{- define "rutter.storeSubjects" }}
subjects:
- kind: ServiceAccount
  name: {{ include "rutter.storeAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* Where a router has the token that it shows the store. */}}
{{- define "rutter.storeTokenDir" -}}/var/run/rutter/store{{- end -}}

{{- define "rutter.storeStorage" -}}
{{- $storage := deepCopy .Values.store.storage -}}
{{- if has $storage.kind (list "io.l5d.k8s" "io.rutter.k8s.configMap") -}}
  {{- $storage = merge $storage (dict "namespace" .Release.Namespace) -}}
{{- end -}}
{{- if eq $storage.kind "file" -}}
  {{- $storage = merge $storage (dict "path" "/var/lib/rutter/dtabs.redb") -}}
{{- end -}}
{{- toYaml $storage -}}
{{- end -}}

{{/* The claim of the volume that the file `storage` is on. */}}
{{- define "rutter.storeClaim" -}}
{{- .Values.store.persistence.existingClaim | default (include "rutter.storeName" .) -}}
{{- end -}}

{{/* Names of the listeners with their ports, in order; 0 is none. */}}
{{- define "rutter.storePorts" -}}
{{- range $name := list "http" "mesh" "thrift" "admin" -}}
{{- with get $.Values.store.ports $name }}
- {name: {{ $name }}, port: {{ . }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The file of the store. */}}
{{- define "rutter.storeConfig" -}}
{{- $store := .Values.store -}}
{{- $ip := ternary "::" "0.0.0.0" (contains ":" .Values.listenAddress) -}}
{{- $http := dict "kind" "io.l5d.httpController" "ip" $ip "port" $store.ports.http -}}
{{- if $store.access.anonymous }}{{ $http = set $http "allowAnonymous" true }}{{ end -}}
{{- $interfaces := list $http -}}
{{- with $store.ports.mesh -}}
  {{- $interfaces = append $interfaces (dict "kind" "io.l5d.mesh" "ip" $ip "port" . "allowAnonymous" true) -}}
{{- end -}}
{{- with $store.ports.thrift -}}
  {{- $interfaces = append $interfaces (dict "kind" "io.l5d.thriftNameInterpreter" "ip" $ip "port" . "allowAnonymous" true) -}}
{{- end -}}
{{- $file := dict
      "admin" (dict "ip" $ip "port" $store.ports.admin "shutdownGraceMs" 10000 "security" (dict "controlEnabled" false))
      "storage" (include "rutter.storeStorage" . | fromYaml)
      "namers" ($store.namers | default .Values.config.namers)
      "interfaces" $interfaces -}}
{{- if not $store.access.anonymous -}}
  {{- $routers := dict "to" (list (printf "system:serviceaccount:%s:%s" .Release.Namespace (include "rutter.serviceAccount" .))) "may" (list "read" "report") -}}
  {{- $access := dict "tokenReview" (dict "audiences" (list $store.access.audience)) "grants" (concat (list $routers) $store.access.grants) -}}
  {{- if $store.access.tokensSecret.name -}}
    {{- $_ := set $access "tokens" (printf "/etc/rutter-tokens/%s" $store.access.tokensSecret.key) -}}
  {{- end -}}
  {{- $_ := set $file "access" $access -}}
{{- end -}}
{{- with $store.auditLog }}{{ $_ := set $file "auditLog" . }}{{ end -}}
# Written by the chart {{ .Chart.Name }} {{ .Chart.Version }} from the values of release {{ .Release.Name }}.
{{ toYaml $file }}
{{- end -}}

{{/* The interpreter of both routers: (dict "root" $ "transformers" …) */}}
{{- define "rutter.interpreter" -}}
{{- $made := dict "kind" "default" -}}
{{- with .root.Values.store -}}
  {{- if .enabled -}}
    {{- $made = dict "kind" "io.l5d.namerd.http" "namespace" .namespace
          "dst" (printf "/$/inet/%s.%s.svc/%d" (include "rutter.storeReplicas" $.root) $.root.Release.Namespace (int .ports.http)) -}}
    {{- if not .access.anonymous -}}
      {{- $_ := set $made "tokenPath" (printf "%s/token" (include "rutter.storeTokenDir" $.root)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- toYaml (set $made "transformers" .transformers) -}}
{{- end -}}

{{/* Whether the routers' pods get a token for the store. */}}
{{- define "rutter.asksStore" -}}
{{- if and .Values.store.enabled (not .Values.store.access.anonymous) -}}true{{- end -}}
{{- end -}}

{{/* The value `dtab` as a list of dentries; `#` with white space before it begins a comment. */}}
{{- define "rutter.dentries" -}}
{{- range $entry := regexReplaceAll "(?m)(^|\\s)#.*$" .Values.dtab "" | splitList ";" -}}
{{- with trim $entry -}}
{{- $parts := splitList "=>" . -}}
{{- if ne (len $parts) 2 -}}
  {{- fail (printf "dtab: expected `prefix => destination`, found `%s`: end each rule with `;`" .) -}}
{{- end }}
- {prefix: {{ index $parts 0 | trim | quote }}, dst: {{ index $parts 1 | trim | quote }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "rutter.checkStore" -}}
{{- $store := .Values.store -}}
{{- $seen := dict -}}
{{- range include "rutter.storePorts" . | fromYamlArray -}}
  {{- $port := toString .port -}}
  {{- if hasKey $seen $port -}}
    {{- fail (printf "store.ports.%s and store.ports.%s are both %s: every interface needs a port of its own" (get $seen $port) .name $port) -}}
  {{- end -}}
  {{- $_ := set $seen $port .name -}}
{{- end -}}
{{- range $router := list "outgoing" "incoming" -}}
  {{- with dig "interpreter" "kind" "" (get $.Values.config $router) -}}
    {{- if not (has . (list "io.l5d.namerd.http" "io.l5d.mesh" "io.l5d.namerd")) -}}
      {{- fail (printf "store.enabled is true, and config.%s.interpreter is %s, which does not ask the store: delete config.%s.interpreter, or set store.enabled to false" $router . $router) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and (eq $store.storage.kind "file") (gt (int $store.replicas) 1) -}}
  {{- fail (printf "store.storage.kind is file, which one process has open at a time, and store.replicas is %d: set it to 1, or take a storage that several share, such as io.l5d.k8s" (int $store.replicas)) -}}
{{- end -}}
{{- if and $store.access.anonymous (or $store.access.grants $store.access.tokensSecret.name) -}}
  {{- fail "store.access.anonymous is true, so that everybody who reaches the store may change every dtab, and store.access.grants or store.access.tokensSecret.name says who may: set store.access.anonymous to false, or empty the others" -}}
{{- end -}}
{{- if and $store.access.anonymous (not $store.networkPolicy.enabled) -}}
  {{- fail "store.access.anonymous is true and store.networkPolicy.enabled false: every pod could change every dtab; set one of them back" -}}
{{- end -}}
{{- if and $store.access.anonymous .Values.hostNetwork (not $store.networkPolicy.httpFrom) -}}
  {{- fail "store.access.anonymous and hostNetwork are true: the routers ask from their nodes' addresses, which the store's NetworkPolicy does not let in; name these in store.networkPolicy.httpFrom, as `[{ipBlock: {cidr: 10.0.0.0/16}}]`" -}}
{{- end -}}
{{- if and .Release.IsUpgrade (eq $store.storage.kind "io.l5d.k8s") (not (.Capabilities.APIVersions.Has "l5d.io/v1alpha1/DTab")) -}}
  {{- fail "store.enabled is true, and this cluster does not know the kind DTab: an upgrade installs no CustomResourceDefinitions; run `kubectl apply -f charts/rutter/crds/` first, or set store.storage.kind to `io.rutter.k8s.configMap`" -}}
{{- end -}}
{{- end -}}
