{{/* The name of the release's objects. */}}
{{- define "llamagate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are selected: those of the release, and with a component those of its pods. */}}
{{- define "llamagate.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "llamagate.labels" -}}
{{ include "llamagate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "llamagate.image" -}}
{{- $repository := required "image.repository is needed: no image is published; docker/README.md says how to build one" .Values.image.repository -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* What clients connect to: the router if there is one. */}}
{{- define "llamagate.front" -}}
{{- if .Values.router.enabled }}router{{ else }}worker{{ end -}}
{{- end -}}

{{- define "llamagate.keysSecret" -}}
{{- default (printf "%s-keys" (include "llamagate.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{- define "llamagate.workerSecret" -}}
{{- default (printf "%s-worker" (include "llamagate.fullname" .)) .Values.auth.existingWorkerSecret -}}
{{- end -}}

{{/* How many workers the router knows. */}}
{{- define "llamagate.mostWorkers" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.worker.replicas }}{{ end -}}
{{- end -}}

{{/* Longer than preStop, the drain, and the stop of llama-server after it (5 s), with a reserve for a busy node. */}}
{{- define "llamagate.graceSeconds" -}}
{{- add .Values.drain.preStopSeconds .Values.drain.timeoutSeconds 15 -}}
{{- end -}}

{{/* Values that contradict each other. */}}
{{- define "llamagate.check" -}}
{{- if and .Values.model.name .Values.worker.config -}}
{{- fail "model.name and worker.config both say what the workers serve: set one of them" -}}
{{- end -}}
{{- if and .Values.worker.models.existingClaim .Values.worker.models.hostPath -}}
{{- fail "worker.models.existingClaim and worker.models.hostPath both say where models lie: set one of them" -}}
{{- end -}}
{{- if and .Values.auth.enabled (not .Values.auth.existingSecret) (not .Values.auth.keys) -}}
{{- fail "auth.existingSecret or auth.keys is needed, or auth.enabled=false" -}}
{{- end -}}
{{- if and .Values.auth.existingSecret .Values.auth.keys -}}
{{- fail "auth.existingSecret and auth.keys both give the keys: set one of them" -}}
{{- end -}}
{{- if and .Values.auth.existingWorkerSecret .Values.auth.workerKey -}}
{{- fail "auth.existingWorkerSecret and auth.workerKey both give the workers' key: set one of them" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.monitoring) (or .Values.autoscaling.enabled .Values.podMonitor.enabled) -}}
{{- fail "networkPolicy.monitoring is needed with autoscaling.enabled or podMonitor.enabled: who may reach the health port" -}}
{{- end -}}
{{- if .Values.router.enabled -}}
{{- if not .Values.model.served -}}
{{- fail "model.served is needed with router.enabled: the names of models that clients use" -}}
{{- end -}}
{{- if and .Values.auth.enabled (not (or .Values.auth.existingWorkerSecret .Values.auth.workerKey)) -}}
{{- fail "auth.existingWorkerSecret or auth.workerKey is needed with router.enabled" -}}
{{- end -}}
{{- else if .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled needs router.enabled: the router's queue is what it scales by" -}}
{{- else if or .Values.auth.existingWorkerSecret .Values.auth.workerKey -}}
{{- fail "auth.existingWorkerSecret and auth.workerKey have no effect without router.enabled" -}}
{{- end -}}
{{- end -}}

{{/* Settings that the chart makes from other values, and that worker.env and router.env may not set. */}}
{{- define "llamagate.ownedSettings" -}}
HOST PORT PORT_HEALTH GATEWAY_PORT DATA_DIR DRAIN_TIMEOUT AUTH_ENABLED AUTH_KEYS_FILE LLAMAGATE_API_KEY CONFIG_FILE MODEL_NAME MODELS_DIR HF_TOKEN MAX_CONCURRENT_REQUESTS QUEUE_TIMEOUT WAIT_FOR_REMOTES WORKER_KEY
{{- end -}}

{{/* Environment variables of a map, in the order of their names. */}}
{{- define "llamagate.extraEnv" -}}
{{- $owned := splitList " " (include "llamagate.ownedSettings" . | trim) -}}
{{- range $name, $value := .env }}
{{- if has $name $owned }}
{{- fail (printf "%s is set by other values of this chart, not by env" $name) }}
{{- end }}
{{- $text := $value | toString }}
{{- /* Helm reads numbers as float64, and writes large ones as 2e+07. */ -}}
{{- if and (kindIs "float64" $value) (eq (toString $value) (floor $value | toString)) }}
{{- $text = $value | int64 | toString }}
{{- end }}
- name: {{ $name }}
  value: {{ $text | quote }}
{{- end }}
{{- end -}}

{{/* Environment variables of both kinds of pods. */}}
{{- define "llamagate.commonEnv" -}}
- name: DATA_DIR
  value: /data
- name: PORT
  value: "8000"
- name: PORT_HEALTH
  value: "8001"
- name: DRAIN_TIMEOUT
  value: {{ printf "%ds" (int .Values.drain.timeoutSeconds) | quote }}
- name: AUTH_ENABLED
  value: {{ .Values.auth.enabled | quote }}
{{- end -}}

{{/* How every container runs: without privileges; it writes to its volumes only. */}}
{{- define "llamagate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "llamagate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
# So that it may read the Secrets and write to its volumes.
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Ports, the wait before SIGTERM, and the probe that ends a container: that of a process that no longer answers. */}}
{{- define "llamagate.portsAndLife" -}}
ports:
  - name: http
    containerPort: 8000
  - name: health
    containerPort: 8001
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.drain.preStopSeconds }}
{{- end -}}

{{- define "llamagate.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where a pod may run. */}}
{{- define "llamagate.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
