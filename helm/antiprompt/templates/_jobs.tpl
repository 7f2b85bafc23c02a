{{/* What the pods of Jobs share; args, name, resources, writes, and Redis where redis is true. */}}
{{- define "antiprompt.jobPod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "antiprompt.selector" (dict "root" $root "component" .component) | nindent 4 }}
spec:
  restartPolicy: {{ .restartPolicy | default "OnFailure" }}
  {{- include "antiprompt.podHead" (dict "root" $root "placed" .placed) | nindent 2 }}
  {{- if .waits }}
  initContainers:
    {{- include "antiprompt.waitForBank" (dict "root" $root "target" .target "files" (list "/bank/CURRENT")) | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "antiprompt.image" (dict "root" $root "target" .target) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        {{- include "antiprompt.env" $root | nindent 8 }}
        {{- if .redis }}
        {{- include "antiprompt.redisEnv" $root | trim | nindent 8 }}
        {{- end }}
        - name: ANTIPROMPT_BANK__DEVICE
          value: cpu
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with include "antiprompt.envFrom" $root }}
      {{- . | trim | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "antiprompt.containerSecurity" $root | nindent 8 }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        {{- include "antiprompt.mounts" (dict "root" $root "writes" true) | nindent 8 }}
        {{- if .texts }}
        - name: texts
          mountPath: /texts
          readOnly: true
        {{- end }}
  volumes:
    {{- include "antiprompt.volumes" (dict "root" $root "data" true) | nindent 4 }}
    {{- with .texts }}
    - name: texts
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}

{{- define "antiprompt.setupPod" -}}
{{- $resources := dict "requests" (dict "cpu" "500m" "memory" "1Gi") "limits" (dict "cpu" "2" "memory" "2Gi") }}
{{- include "antiprompt.jobPod" (dict "root" . "component" "setup" "target" "cpu" "placed" (dict) "args" (list "bank" "init") "resources" $resources) }}
{{- end }}

{{- define "antiprompt.calibrationPod" -}}
{{- $own := .Values.calibration }}
{{- $args := list "calibrate" "--benign" "/texts" "--out" "/bank/calibration.json" "--alpha" (toString $own.alpha) }}
{{- include "antiprompt.jobPod" (dict "root" . "component" "calibration" "target" "cpu" "placed" (dict) "args" $args "resources" $own.resources "waits" true "texts" $own.texts) }}
{{- end }}

{{- define "antiprompt.retrainingPod" -}}
{{- $own := .Values.retraining }}
{{- $env := ternary (list (dict "name" "ANTIPROMPT_RETRAINING__TRAIN_ADAPTER" "value" "true")) list $own.trains }}
{{- include "antiprompt.jobPod" (dict "root" . "component" "retraining" "target" (ternary "worker" "cpu" $own.trains) "placed" $own "args" (list "retrain" "--once" "--if-any" "--by" "schedule") "resources" $own.resources "redis" true "env" $env "restartPolicy" "Never") }}
{{- end }}
