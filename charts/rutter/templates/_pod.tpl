{{/* The pod of a node. */}}

{{- define "rutter.updateStrategy" -}}
{{- if .Values.updateStrategy -}}
{{ toYaml .Values.updateStrategy }}
{{- else if and (eq .Values.reach "nodeLocalService") (not .Values.hostNetwork) -}}
{{- /* The new router takes requests before the old one leaves. */ -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- else -}}
{{- /* A second pod could not have the same host port (kubernetes#106417). */ -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
{{- end -}}
{{- end -}}

{{- define "rutter.podAnnotations" -}}
{{- $annotations := dict -}}
{{- if .Values.metrics.annotations -}}
  {{- $annotations = dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .Values.ports.admin) "prometheus.io/path" .Values.metrics.path -}}
{{- end -}}
{{- if not .Values.existingConfigMap.name -}}
  {{- if .Values.restartOnConfigChange -}}
    {{- $_ := set $annotations "checksum/config" (include "rutter.config" . | sha256sum) -}}
  {{- else -}}
    {{- $_ := set $annotations "checksum/restart" (include "rutter.needsRestart" . | sha256sum) -}}
  {{- end -}}
{{- end -}}
{{- with mergeOverwrite $annotations (deepCopy .Values.commonAnnotations) (deepCopy .Values.podAnnotations) -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- define "rutter.podSpec" -}}
serviceAccountName: {{ include "rutter.serviceAccount" . }}
automountServiceAccountToken: true
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "rutter.terminationGrace" . }}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- end }}
dnsPolicy: {{ .Values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "ClusterFirst" .Values.hostNetwork) }}
{{- /* Kubernetes takes an absent key for its default, and an empty one not always. */}}
{{- range $key, $value := dict "dnsConfig" .Values.dnsConfig "hostAliases" .Values.hostAliases "runtimeClassName" .Values.runtimeClassName
      "schedulerName" .Values.schedulerName "priorityClassName" .Values.priorityClassName "nodeSelector" .Values.nodeSelector
      "tolerations" .Values.tolerations "affinity" .Values.affinity "imagePullSecrets" .Values.imagePullSecrets
      "securityContext" .Values.podSecurityContext "initContainers" .Values.extraInitContainers }}
{{- if $value }}
{{ toYaml (dict $key $value) }}
{{- end }}
{{- end }}
containers:
- {{- $container := include "rutter.container" . | fromYaml }}
  {{- if hasKey $container "Error" }}{{ fail (printf "the container cannot be written: %s" $container.Error) }}{{ end }}
  {{- toYaml (mergeOverwrite $container (deepCopy .Values.container)) | nindent 2 }}
{{- with .Values.extraContainers }}
{{ toYaml . }}
{{- end }}
volumes:
- name: config
  configMap:
    name: {{ include "rutter.configMap" . }}
{{- if .Values.stateDir.enabled }}
- name: state
  {{- if .Values.stateDir.hostPath }}
  hostPath: {path: {{ .Values.stateDir.hostPath | quote }}, type: Directory}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.stateDir.sizeLimit }}}
  {{- end }}
{{- end }}
{{- if include "rutter.asksStore" . }}
- name: store-token
  projected:
    sources:
    - serviceAccountToken: {path: token, audience: {{ .Values.store.access.audience | quote }}, expirationSeconds: 3600}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "rutter.container" -}}
name: {{ .Values.containerName }}
image: {{ include "rutter.image" (dict "image" .Values.image "tag" .Chart.AppVersion) | quote }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
args:
- run
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
- {{ printf "%s/%s" (trimSuffix "/" .Values.configDir) (include "rutter.configKey" .) | quote }}
env:
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: RUTTER_LOG, value: {{ .Values.logLevel | quote }}}
{{- if include "rutter.asksProxy" . }}
- {name: RUTTER_KUBERNETES_API, value: direct}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
{{ toYaml . }}
{{- end }}
ports:
{{- $hostPorts := or .Values.hostNetwork (eq .Values.reach "hostPort") }}
- name: outgoing
  containerPort: {{ .Values.ports.outgoing }}
  {{- if $hostPorts }}
  hostPort: {{ .Values.ports.outgoing }}
  {{- with .Values.hostIP }}
  hostIP: {{ . | quote }}
  {{- end }}
  {{- end }}
{{- if .Values.ports.incoming }}
- name: incoming
  containerPort: {{ .Values.ports.incoming }}
  {{- if .Values.hostNetwork }}
  hostPort: {{ .Values.ports.incoming }}
  {{- end }}
{{- end }}
- name: admin
  containerPort: {{ .Values.ports.admin }}
  {{- if .Values.hostNetwork }}
  hostPort: {{ .Values.ports.admin }}
  {{- end }}
{{- range .Values.ports.extra }}
- name: {{ .name }}
  containerPort: {{ .port }}
  {{- if $.Values.hostNetwork }}
  hostPort: {{ .port }}
  {{- else if .hostPort }}
  hostPort: {{ .hostPort }}
  {{- end }}
{{- end }}
{{- /* Endpoints are taken out everywhere before the listeners close. */}}
{{- if .Values.drain.waitSeconds }}
lifecycle:
  preStop:
    sleep: {seconds: {{ .Values.drain.waitSeconds }}}
{{- end }}
startupProbe: {{ merge (dict "httpGet" (dict "path" "/live" "port" "admin")) .Values.startupProbe | toJson }}
livenessProbe: {{ merge (dict "httpGet" (dict "path" "/live" "port" "admin")) .Values.livenessProbe | toJson }}
readinessProbe: {{ merge (dict "httpGet" (dict "path" "/ready" "port" "admin")) .Values.readinessProbe | toJson }}
resources: {{ toJson .Values.resources }}
securityContext: {{ toJson .Values.securityContext }}
volumeMounts:
- {name: config, mountPath: {{ .Values.configDir | quote }}, readOnly: true}
{{- if .Values.stateDir.enabled }}
- {name: state, mountPath: {{ .Values.stateDir.mountPath | quote }}}
{{- end }}
{{- if include "rutter.asksStore" . }}
- {name: store-token, mountPath: {{ include "rutter.storeTokenDir" . }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
