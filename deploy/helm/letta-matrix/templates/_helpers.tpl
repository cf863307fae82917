{{- define "letta-matrix.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "letta-matrix.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "letta-matrix.labels" -}}
{{ include "letta-matrix.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "letta-matrix.secret" -}}
{{- default (include "letta-matrix.fullname" .) .Values.tokens.existingSecret -}}
{{- end -}}

{{/* Where the homeserver reaches us. */}}
{{- define "letta-matrix.appservice" -}}
{{- $own := printf "http://%s.%s.svc:%v" (include "letta-matrix.fullname" .) .Release.Namespace .Values.service.ports.appservice -}}
{{- default $own (dig "appservice" "url" "" .Values.config) -}}
{{- end -}}

{{/* config.yaml: what the chart knows, below what is wanted. */}}
{{- define "letta-matrix.config" -}}
{{- $name := include "letta-matrix.fullname" . -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- $ports := .Values.service.ports -}}
{{- $ours := dict
  "appservice" (dict "url" (include "letta-matrix.appservice" .) "hostname" "0.0.0.0" "port" ($ports.appservice | int))
  "database" (dict "url" "sqlite:////data/letta-matrix.db")
  "api" (dict "hostname" "0.0.0.0" "port" ($ports.api | int) "allowed_hosts" $hosts)
  "mcp" (dict "hostname" "0.0.0.0" "port" ($ports.mcp | int) "websocket_port" ($ports.mcpWebsocket | int) "allowed_hosts" $hosts)
  "logging" (dict "format" "json") -}}
{{- mustMergeOverwrite $ours (deepCopy .Values.config) | toYaml -}}
{{- end -}}
