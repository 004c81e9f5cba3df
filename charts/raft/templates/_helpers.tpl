{{- define "raft.fullname" -}}
{{- default (printf "%s-operator" (.Release.Name | trunc 54 | trimSuffix "-")) .Values.fullnameOverride -}}
{{- end -}}

{{- define "raft.selector" -}}
app.kubernetes.io/name: raft-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels that people add never take the place of the chart's own. */ -}}
{{- define "raft.labels" -}}
{{- $own := include "raft.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/component" "operator" -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "raft-ebpf" -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{ toYaml (merge $own .Values.commonLabels) }}
{{- end -}}

{{- define "raft.serviceAccountName" -}}
{{- default (ternary (include "raft.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "raft.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}
