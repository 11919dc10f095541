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

{{- /* Bytes of a size such as 64Mi. */ -}}
{{- define "behalf.bytes" -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mul (trimSuffix (regexFind "[KMGT]i$" .) . | int64) (get $units (regexFind "[KMGT]i$" .)) -}}
{{- end -}}

{{- /* Where sidecars write their records, as the operator takes it; what cannot be is refused here. */ -}}
{{- define "behalf.records" -}}
{{- $records := .Values.sidecar.records -}}
{{- $file := $records.file -}}
{{- if and (eq $records.stdout "Disabled") (eq $file.mode "Disabled") -}}
{{- fail "sidecar.records: records would go neither to standard output nor to a file; set stdout or file.mode to Enabled" -}}
{{- end -}}
{{- $reserve := include "behalf.bytes" $file.reserveBytes | int64 -}}
{{- if or (lt (include "behalf.bytes" $file.maxBytes | int64) 65536) (lt $reserve 65536) (gt $reserve 1073741824) -}}
{{- fail "sidecar.records.file: maxBytes and reserveBytes are at least 64Ki, and reserveBytes at most 1Gi" -}}
{{- end -}}
{{- $needed := add (mul (include "behalf.bytes" $file.maxBytes | int64) (add $file.maxFiles 1)) (mul $reserve 2) -}}
{{- if lt (include "behalf.bytes" $file.volume.size | int64) $needed -}}
{{- fail (printf "sidecar.records.file: volume.size is %s, and the files may take %d bytes (maxBytes * (maxFiles + 1) + 2 * reserveBytes); make it larger" $file.volume.size $needed) -}}
{{- end -}}
{{- if and (eq $file.volume.type "EmptyDir") $file.volume.storageClassName -}}
{{- fail "sidecar.records.file.volume: storageClassName is for type Ephemeral; remove it" -}}
{{- end -}}
{{- if and $records.otlp.caBundle (not $records.otlp.url) -}}
{{- fail "sidecar.records.otlp: caBundle is set and url is not" -}}
{{- end -}}
{{- toJson $records -}}
{{- end -}}

{{- /* CEL: a token is asked for by kubelet, for a pod. */ -}}
{{- define "behalf.kubelet" -}}
(request.userInfo.username.startsWith('system:node:') && 'system:nodes' in request.userInfo.?groups.orValue([]) && object.spec.?boundObjectRef.?kind.orValue('') == 'Pod')
{{- end -}}
