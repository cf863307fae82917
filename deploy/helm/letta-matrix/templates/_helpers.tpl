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

{{/* Stops at values of which one would be dropped, or would lead nowhere. */}}
{{- define "letta-matrix.check" -}}
{{- if and .Values.tokens.existingSecret .Values.secrets -}}
{{- fail "secrets: with tokens.existingSecret they belong into that Secret, as keys of it" -}}
{{- end -}}
{{- range $section, $names := dict "api" (list "port") "appservice" (list "port") "mcp" (list "port" "websocket_port") -}}
{{- range $names -}}
{{- if hasKey (default dict (index $.Values.config $section)) . -}}
{{- fail (printf "config.%s.%s: set it by service.ports, which the Service and the probes use, too" $section .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* config.yaml: what the chart knows, below what is wanted. */}}
{{- define "letta-matrix.config" -}}
{{- include "letta-matrix.check" . -}}
{{- $name := include "letta-matrix.fullname" . -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.%s" $name .Release.Namespace .Values.clusterDomain) -}}
{{- $ports := .Values.service.ports -}}
{{- $ours := dict
  "appservice" (dict "url" (include "letta-matrix.appservice" .) "hostname" "0.0.0.0" "port" ($ports.appservice | int))
  "database" (dict "url" "sqlite:////data/letta-matrix.db")
  "api" (dict "hostname" "0.0.0.0" "port" ($ports.api | int) "allowed_hosts" $hosts)
  "mcp" (dict "hostname" "0.0.0.0" "port" ($ports.mcp | int) "websocket_port" ($ports.mcpWebsocket | int) "allowed_hosts" $hosts)
  "logging" (dict "format" "json") -}}
{{- $whole := mustMergeOverwrite $ours (deepCopy .Values.config) -}}
{{- range $section := list "api" "mcp" -}}
{{- $more := dig $section "allowed_hosts" list $.Values.config -}}
{{- $_ := set (index $whole $section) "allowed_hosts" (concat $hosts $more | uniq) -}}
{{- end -}}
{{- toYaml $whole -}}
{{- end -}}
