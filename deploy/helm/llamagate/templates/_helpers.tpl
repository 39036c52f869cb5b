{{/*
The name of the release's objects. Kubernetes takes 63 characters: the longest are NAME-router-health, and the label that a
StatefulSet gives its pods, NAME-worker-REVISION with up to 10 characters for the revision.
*/}}
{{- define "llamagate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name -}}{{- $full = .Release.Name -}}{{- end -}}
{{- default $full .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
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
{{- if not .Values.auth.enabled -}}
{{- range $name := list "existingSecret" "keys" "existingWorkerSecret" "workerKey" -}}
{{- if get $.Values.auth $name -}}
{{- fail (printf "auth.%s has no effect with auth.enabled=false" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.auth.enabled (not .Values.auth.existingSecret) (not .Values.auth.keys) -}}
{{- fail "auth.existingSecret or auth.keys is needed, or auth.enabled=false" -}}
{{- end -}}
{{- if and .Values.limitsStore.existingSecret (not .Values.auth.enabled) -}}
{{- fail "limitsStore.existingSecret has no effect with auth.enabled=false: there are no keys whose limits could be shared" -}}
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
{{- if and .Values.model.name (gt (len .Values.model.served) 1) -}}
{{- fail "model.served has several names, and model.name is one model: name each model in worker.config" -}}
{{- end -}}
{{- if and .Values.model.served (not .Values.router.enabled) -}}
{{- fail "model.served has no effect without router.enabled" -}}
{{- end -}}
{{- if .Values.router.enabled -}}
{{- if and .Values.router.existingClaim (gt (int .Values.router.replicas) 1) -}}
{{- fail "router.existingClaim is for one router, because each writes a usage ledger of its own: set router.replicas=1" -}}
{{- end -}}
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
HOST PORT PORT_HEALTH GATEWAY_PORT DATA_DIR DRAIN_TIMEOUT AUTH_ENABLED AUTH_KEYS_FILE LLAMAGATE_API_KEY CONFIG_FILE MODEL_NAME MODELS_DIR HF_TOKEN MAX_CONCURRENT_REQUESTS QUEUE_TIMEOUT WAIT_FOR_REMOTES WORKER_KEY LIMITS_STORE
{{- end -}}

{{/* Environment variables of a map, in the order of their names. A worker behind a router has no other client. */}}
{{- define "llamagate.extraEnv" -}}
{{- $owned := splitList " " (include "llamagate.ownedSettings" . | trim) -}}
{{- $ofTls := list -}}
{{- if and .isWorker .root.Values.router.enabled -}}
{{- if .root.Values.auth.enabled -}}{{- $owned = append $owned "MAX_REQUESTS_PER_MINUTE" -}}{{- end -}}
{{- $ofTls = list "TLS_CERT" "TLS_KEY" "TLS_SELF_SIGNED" "TLS_ACME_DOMAINS" "TLS_CLIENT_CA" -}}
{{- end -}}
{{- range $name, $value := .env }}
{{- if has $name $owned }}
{{- fail (printf "%s is set by other values of this chart, not by env" $name) }}
{{- end }}
{{- if has $name $ofTls }}
{{- fail (printf "worker.env may not set %s: the router speaks plain HTTP to the workers; set it in router.env" $name) }}
{{- end }}
{{- if eq $name "TLS_HEALTH" }}
{{- fail "TLS_HEALTH may not be set: probes, Prometheus and KEDA speak plain HTTP to the health port" }}
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
# Also in place of what extraEnvFrom or a configuration file says.
- name: TLS_HEALTH
  value: "false"
- name: AUTH_ENABLED
  value: {{ .Values.auth.enabled | quote }}
{{- end -}}

{{/* Where the pods that clients connect to share the limits of keys. */}}
{{- define "llamagate.limitsStore" -}}
{{- with .Values.limitsStore.existingSecret }}
- name: LIMITS_STORE
  valueFrom:
    secretKeyRef: {name: {{ . | quote }}, key: limits-store}
{{- end }}
{{- end -}}

{{/* Annotations of the pods of a component: the user's, and a mark that changes with the workers' key, which they read at the start. */}}
{{- define "llamagate.podAnnotations" -}}
{{- $annotations := dict -}}
{{- with .root.Values.auth.workerKey -}}
{{- /* Too short to try out guesses of the key. */ -}}
{{- $_ := set $annotations "checksum/worker-key" (sha256sum . | trunc 8) -}}
{{- end -}}
{{- with merge $annotations .annotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The volumes of a component that the user adds. */}}
{{- define "llamagate.extraVolumes" -}}
{{- range .extraVolumes }}
{{- if has .name (list "config" "data" "keys" "models" "tmp") }}
{{- fail (printf "extraVolumes: %s is a volume of this chart; take another name" .name) }}
{{- end }}
{{- end }}
{{- with .extraVolumes }}
{{- toYaml . }}
{{- end }}
{{- end -}}

{{/* Where they are mounted. */}}
{{- define "llamagate.extraVolumeMounts" -}}
{{- range .extraVolumeMounts }}
{{- if has (trimSuffix "/" .mountPath) (list "/data" "/tmp" "/models" "/etc/llamagate/config" "/etc/llamagate/keys") }}
{{- fail (printf "extraVolumeMounts: %s is a folder of this chart; take another" .mountPath) }}
{{- end }}
{{- end }}
{{- with .extraVolumeMounts }}
{{- toYaml . }}
{{- end }}
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
  - name: {{ . | quote }}
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
