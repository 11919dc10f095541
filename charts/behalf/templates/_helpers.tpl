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

{{- /* Selectors of policies: pods of enrolled namespaces, and among them those that join an identity. */ -}}
{{- define "behalf.enrolled" -}}
namespaceSelector:
  matchExpressions:
    - {key: behalf.dev/injection, operator: Exists}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: {{ include "behalf.excluded" . }}}
{{- end -}}
{{- define "behalf.joined" -}}
objectSelector:
  matchExpressions:
    - {key: behalf.dev/agent-identity, operator: Exists}
{{- end -}}

{{- /* A variable of policies: the service accounts of the pod's namespace that the platform has exempted. */ -}}
{{- define "behalf.exempt" -}}
- {name: exempt, expression: "namespaceObject.metadata.?annotations[?'behalf.dev/exempt-service-accounts'].orValue('').split(',').map(name, name.trim()).filter(name, name != '')"}
{{- end -}}

{{- /* CEL: a token is asked for by kubelet, for a pod. */ -}}
{{- define "behalf.kubelet" -}}
(request.userInfo.username.startsWith('system:node:') && 'system:nodes' in request.userInfo.?groups.orValue([]) && object.spec.?boundObjectRef.?kind.orValue('') == 'Pod')
{{- end -}}
