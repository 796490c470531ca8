{{/* The name of everything in a release: the release's own if it says what it is, otherwise with the chart's behind it. */}}
{{- define "distlog.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name that stands for all nodes, also for those that are not ready. */}}
{{- define "distlog.nodes" -}}
{{ include "distlog.name" . }}-nodes
{{- end -}}

{{/* Where clients reach the nodes that form the cluster: by the names of their pods, which certificates have and addresses have not. */}}
{{- define "distlog.members" -}}
{{- $domain := printf "%s.%s.svc" (include "distlog.nodes" .) .Release.Namespace -}}
{{- range $ordinal := until (int .Values.expect) -}}
{{- if $ordinal }},{{ end -}}
{{ include "distlog.name" $ }}-{{ $ordinal }}.{{ $domain }}:8400
{{- end -}}
{{- end -}}

{{/* What the services find the pods by.  It never changes: a StatefulSet cannot change it. */}}
{{- define "distlog.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "distlog.labels" -}}
{{ include "distlog.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* How the port for monitoring is spoken to. */}}
{{- define "distlog.scheme" -}}
{{ if .Values.insecure }}http{{ else }}https{{ end }}
{{- end -}}

{{/* One of the two ways to listen is chosen in so many words. */}}
{{- define "distlog.checked" -}}
{{- if and .Values.tls.secretName .Values.insecure -}}
{{- fail "tls.secretName and insecure are two ways to listen: give one of them" -}}
{{- end -}}
{{- if not (or .Values.tls.secretName .Values.insecure) -}}
{{- fail "give tls.secretName, a secret with certificates, or insecure=true if everybody in the network may do everything" -}}
{{- end -}}
{{- $own := .Values.serviceMonitor.tls -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.insecure) (not $own.secretName) (contains "$(NODE_ID)" .Values.tls.certKey) -}}
{{- fail "give serviceMonitor.tls.secretName: the secret of the nodes has a certificate for each of them, and Prometheus needs one of its own" -}}
{{- end -}}
{{- if lt (int .Values.replicas) (int .Values.expect) -}}
{{- fail "replicas must be at least expect: fewer nodes than are expected never form a cluster" -}}
{{- end -}}
{{- end -}}
