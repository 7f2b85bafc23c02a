{{/* What the pods of the gateway's own images share. */}}

{{- define "antiprompt.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "antiprompt.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The head of a pod's spec. Service links would set variables such as ANTIPROMPT_PORT, which are settings here. */}}
{{- define "antiprompt.podHead" -}}
serviceAccountName: {{ include "antiprompt.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "antiprompt.podSecurity" . | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .placed.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .placed.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .placed.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .placed.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "antiprompt.podAnnotations" -}}
checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "antiprompt.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .from.secret }}
      key: {{ .from.key }}
{{- end }}

{{- define "antiprompt.redisEnv" -}}
{{- $redis := .Values.redis }}
{{- if eq $redis.mode "bundled" }}
{{ include "antiprompt.secretEnv" (dict "name" "REDIS_PASSWORD" "from" $redis.bundled.password) }}
- name: ANTIPROMPT_REDIS__URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "antiprompt.fullname" . }}-redis:6379/0
{{- else if $redis.url.secret }}
{{ include "antiprompt.secretEnv" (dict "name" "ANTIPROMPT_REDIS__URL" "from" $redis.url) }}
{{- end }}
{{- if eq $redis.mode "sentinel" }}
- name: ANTIPROMPT_REDIS__SENTINELS
  value: {{ toJson $redis.sentinel.addresses | squote }}
- name: ANTIPROMPT_REDIS__SENTINEL_NAME
  value: {{ $redis.sentinel.name | quote }}
{{- if $redis.sentinel.password.secret }}
{{ include "antiprompt.secretEnv" (dict "name" "ANTIPROMPT_REDIS__SENTINEL_PASSWORD" "from" $redis.sentinel.password) }}
{{- end }}
{{- end }}
{{- if eq $redis.mode "cluster" }}
- name: ANTIPROMPT_REDIS__CLUSTER_NODES
  value: {{ toJson $redis.cluster.nodes | squote }}
{{- end }}
{{- if and (ne $redis.mode "bundled") $redis.waitReplicas }}
- name: ANTIPROMPT_REDIS__WAIT_REPLICAS
  value: {{ $redis.waitReplicas | quote }}
{{- end }}
{{- end }}

{{/* The environment of every container; the file holds the settings of values.yaml, and the environment wins. */}}
{{- define "antiprompt.env" -}}
- name: ANTIPROMPT_CONFIG
  value: /etc/antiprompt/settings.yaml
- name: ANTIPROMPT_HOST
  value: 0.0.0.0
- name: ANTIPROMPT_PORT
  value: "8080"
- name: ANTIPROMPT_DATA_DIR
  value: /data
{{- if .Values.policy }}
- name: ANTIPROMPT_POLICY_FILE
  value: /etc/antiprompt/policy.yaml
{{- end }}
{{- if eq .Values.bank.store "volume" }}
- name: ANTIPROMPT_BANK__PATH
  value: /bank
{{- else if eq .Values.bank.store "object" }}
- name: ANTIPROMPT_BANK__REMOTE
  value: {{ .Values.bank.object.url | quote }}
{{- end }}
{{- with .Values.bank.version }}
- name: ANTIPROMPT_BANK__VERSION
  value: {{ . | quote }}
{{- end }}
{{- if .Values.calibration.enabled }}
- name: ANTIPROMPT_BANK__CALIBRATION_FILE
  value: /bank/calibration.json
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The credentials of an object store. */}}
{{- define "antiprompt.envFrom" -}}
{{- if and (eq .Values.bank.store "object") .Values.bank.object.secret }}
envFrom:
  - secretRef: {name: {{ .Values.bank.object.secret }}}
{{- end }}
{{- end }}

{{/* writes: whether the container may change the bank's volume. */}}
{{- define "antiprompt.mounts" -}}
- name: config
  mountPath: /etc/antiprompt
  readOnly: true
- name: data
  mountPath: /data
- name: tmp
  mountPath: /tmp
{{- if eq .root.Values.bank.store "volume" }}
- name: bank
  mountPath: /bank
  readOnly: {{ not .writes }}
{{- else if eq .root.Values.bank.store "object" }}
- name: bank
  mountPath: /data/bank
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A claim template of the same name gives the volume where data is false, or bankGiven is true. */}}
{{- define "antiprompt.volumes" -}}
- name: config
  configMap:
    name: {{ include "antiprompt.fullname" .root }}-config
{{- if .data }}
- name: data
  emptyDir:
    sizeLimit: {{ .root.Values.gateway.spool.size }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if eq .root.Values.bank.store "volume" }}
- name: bank
  persistentVolumeClaim:
    claimName: {{ include "antiprompt.bankClaim" .root }}
{{- else if and (eq .root.Values.bank.store "object") (not .bankGiven) }}
- name: bank
  emptyDir:
    sizeLimit: {{ .root.Values.bank.object.cacheSize }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Waits until the setup Job has put the first bank on the volume, and the calibration Job its fit where one runs. */}}
{{- define "antiprompt.waitForBank" -}}
- name: wait-for-bank
  image: {{ include "antiprompt.image" (dict "root" .root "target" .target) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [sh, -c]
  args:
    - |-
      for file in {{ join " " .files }}; do
        until [ -s "$file" ]; do echo "waiting for $file"; sleep 5; done
      done
  securityContext:
    {{- include "antiprompt.containerSecurity" .root | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 64Mi}
  volumeMounts:
    - name: bank
      mountPath: /bank
      readOnly: true
{{- end }}
