{{- define "hammerd.name" -}}
{{- if contains "hammerd" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-hammerd" (.Release.Name | trunc 44 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "hammerd.selector" -}}
app.kubernetes.io/name: hammerd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hammerd.labels" -}}
{{ include "hammerd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "hammerd.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "hammerd.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "hammerd.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* Whether replicas share one stream, and so need a headless service. */}}
{{- define "hammerd.peers" -}}
{{- if or (eq .Values.mode "statefulset") .Values.shardByMembers -}}yes{{- end -}}
{{- end -}}

{{- define "hammerd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end -}}

{{- define "hammerd.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What no schema can say: values that don't go together. */}}
{{- define "hammerd.refuse" -}}
{{- $given := list -}}
{{- range $key := list "config" "existingConfigMap" "existingSecret" -}}
{{- if index $.Values $key -}}{{- $given = append $given $key -}}{{- end -}}
{{- end -}}
{{- if eq (len $given) 0 -}}
{{- fail "there is no configuration: give it with --set-file config=hammerd.toml, or name yours with existingConfigMap or existingSecret" -}}
{{- end -}}
{{- if gt (len $given) 1 -}}
{{- fail (printf "one configuration, please: %s are set, and only one of them can be" (join " and " $given)) -}}
{{- end -}}
{{- if and (eq .Values.mode "statefulset") .Values.shardByMembers -}}
{{- fail "shardByMembers goes with mode=deployment: a StatefulSet's replicas know their share by the index of their pod" -}}
{{- end -}}
{{- if and (eq .Values.mode "deployment") (gt (int .Values.replicas) 1) (not .Values.shardByMembers) -}}
{{- fail (printf "replicas=%d with mode=deployment would send every rate %d times: set mode=statefulset or shardByMembers=true to share one stream, or install a release for each stream" (int .Values.replicas) (int .Values.replicas)) -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled (le (int .Values.shutdown.lingerSeconds) (int .Values.podMonitor.intervalSeconds)) -}}
{{- fail (printf "shutdown.lingerSeconds=%d is not longer than podMonitor.intervalSeconds=%d: the last counts of a pod would be lost" (int .Values.shutdown.lingerSeconds) (int .Values.podMonitor.intervalSeconds)) -}}
{{- end -}}
{{- end -}}
