{{/* Names, labels and images. A component is one kind of pod: gateway, worker, review, redis, or one of the Jobs. */}}

{{- define "antiprompt.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "antiprompt.fullname" -}}
{{- $name := include "antiprompt.name" . }}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $whole | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "antiprompt.selector" -}}
app.kubernetes.io/name: {{ include "antiprompt.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "antiprompt.labels" -}}
{{ include "antiprompt.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "antiprompt.metadata" -}}
name: {{ include "antiprompt.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "antiprompt.labels" . | nindent 2 }}
{{- end }}

{{- define "antiprompt.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "antiprompt.fullname" .) }}
{{- end }}

{{/* The image of a target: cpu, gpu or worker. */}}
{{- define "antiprompt.image" -}}
{{- $image := .root.Values.image }}
{{- with get $image.digests .target }}
{{- printf "%s@%s" $image.repository . }}
{{- else }}
{{- printf "%s:%s-%s" $image.repository ($image.tag | default .root.Chart.AppVersion) .target }}
{{- end }}
{{- end }}

{{- define "antiprompt.bankClaim" -}}
{{- .Values.bank.volume.existingClaim | default (printf "%s-bank" (include "antiprompt.fullname" .)) }}
{{- end }}

{{/* What cannot stand in values.schema.json, because it takes several values to see. */}}
{{- define "antiprompt.check" -}}
{{- if eq .Values.bank.store "image" }}
{{- range $name, $on := dict "worker.enabled" .Values.worker.enabled "retraining.schedule" .Values.retraining.schedule }}
{{- if $on }}
{{- fail (printf "%s needs bank.store: volume or object, which gateways and workers share" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.calibration.enabled (ne .Values.bank.store "volume") }}
{{- fail "calibration.enabled needs bank.store: volume, on which gateways find its result" }}
{{- end }}
{{- if and (eq .Values.bank.store "object") (not .Values.bank.object.url) }}
{{- fail "bank.store: object needs bank.object.url" }}
{{- end }}
{{- if and .Values.calibration.enabled (not .Values.calibration.texts) }}
{{- fail "calibration.enabled needs calibration.texts, the volume that holds your harmless texts" }}
{{- end }}
{{- if and .Values.upstream.baseUrl (not .Values.upstream.apiKey.secret) }}
{{- fail "upstream.baseUrl needs upstream.apiKey.secret: callers' keys stay at the gateway, so it sends its own" }}
{{- end }}
{{- if and (eq .Values.redis.mode "url") (not .Values.redis.url.secret) }}
{{- fail "redis.mode: url needs redis.url.secret, the Secret with the URL" }}
{{- end }}
{{- if and (eq .Values.redis.mode "sentinel") (not .Values.redis.sentinel.addresses) }}
{{- fail "redis.mode: sentinel needs redis.sentinel.addresses" }}
{{- end }}
{{- if and (eq .Values.redis.mode "cluster") (not .Values.redis.cluster.nodes) }}
{{- fail "redis.mode: cluster needs redis.cluster.nodes" }}
{{- end }}
{{- if and .Values.review.oidc.issuer (not (and .Values.review.oidc.clientId .Values.review.publicUrl)) }}
{{- fail "review.oidc.issuer needs review.oidc.clientId and review.publicUrl" }}
{{- end }}
{{- $scaling := .Values.gateway.autoscaling }}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{- fail "gateway.autoscaling.minReplicas is above maxReplicas" }}
{{- end }}
{{- if and $scaling.enabled (eq $scaling.metric "queue") (not .Values.monitoring.rules) }}
{{- fail "gateway.autoscaling.metric: queue needs monitoring.rules, which measure the wait" }}
{{- end }}
{{- range $name := list "gateway" "review" }}
{{- $ingress := (index $.Values $name).ingress }}
{{- if and $ingress.enabled (not $ingress.host) }}
{{- fail (printf "%s.ingress.enabled needs %s.ingress.host" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
