{{/* Peers and rules of the network policies. */}}

{{/* The peers given, or anywhere but the addresses at which nodes hand out their credentials. */}}
{{- define "antiprompt.peers" -}}
{{- if . }}
{{- toYaml . }}
{{- else -}}
- ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
- ipBlock: {cidr: "::/0", except: ["fe80::/10", "fd00:ec2::/32"]}
{{- end }}
{{- end }}

{{- define "antiprompt.upstreamPort" -}}
{{- $url := urlParse .Values.upstream.baseUrl }}
{{- $given := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $given | default (ternary "80" "443" (eq $url.scheme "http")) }}
{{- end }}

{{- define "antiprompt.egress.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{/* Sentinels and cluster nodes also have ports of their own. */}}
{{- define "antiprompt.egress.redis" -}}
{{- $redis := .Values.redis }}
{{- if eq $redis.mode "bundled" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "antiprompt.selector" (dict "root" . "component" "redis") | nindent 10 }}
  ports: [{port: 6379, protocol: TCP}]
{{- else -}}
{{- $ports := list (toString $redis.port) }}
{{- $addresses := list }}
{{- if eq $redis.mode "sentinel" }}{{- $addresses = $redis.sentinel.addresses }}{{- end }}
{{- if eq $redis.mode "cluster" }}{{- $addresses = $redis.cluster.nodes }}{{- end }}
{{- range $addresses }}
{{- $ports = append $ports (regexFind "[0-9]+$" .) }}
{{- end -}}
- to:
    {{- include "antiprompt.peers" .Values.networkPolicy.redis | nindent 4 }}
  ports:
    {{- range uniq $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}

{{- define "antiprompt.egress.objectStore" -}}
{{- if eq .Values.bank.store "object" -}}
- to:
    {{- include "antiprompt.peers" .Values.networkPolicy.objectStore | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.objectStorePorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}

{{- define "antiprompt.ingress.scrapers" -}}
{{- with .Values.networkPolicy.scrapers -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports: [{port: 8080, protocol: TCP}]
{{- end }}
{{- end }}
