{{- define "behalf.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "behalf.labels" -}}
app.kubernetes.io/name: behalf
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: behalf
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "behalf.selector" -}}
app.kubernetes.io/name: behalf
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* Namespaces in which nothing of ours is ever judged, as a YAML list. */ -}}
{{- define "behalf.excluded" -}}
{{- concat (list "kube-system" .Release.Namespace) .Values.excludedNamespaces | uniq | toJson -}}
{{- end -}}

{{- /* The operator's own user name, for policies. */ -}}
{{- define "behalf.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:behalf-operator
{{- end -}}
