//! What the node's programs read: their configuration files and arguments.
use std::fs;

use anyhow::Result;

use super::layout::{DNS_SERVICE, DOMAIN, Layout, NODE, NODE_IP, NODE_IP6, PODS, SERVICES};

/// The issuer of service-account tokens; its keys are served at `…/openid/v1/jwks` there.
pub(super) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Writes every configuration file of the node into the run directory.
///
/// # Errors
/// One cannot be written.
pub(super) fn write(layout: &Layout, pause: &str) -> Result<()> {
    let run = layout.run.display();
    fs::create_dir_all(layout.run.join("cni"))?;
    let files = [
        ("resolv.conf", "nameserver 127.0.0.1\n".to_owned()),
        ("audit.yaml", AUDIT.to_owned()),
        ("kubelet.yaml", kubelet(&run.to_string())),
        ("proxy.yaml", proxy(&run.to_string())),
        ("containerd.toml", containerd(&run.to_string(), pause)),
        ("cni/10-pods.conflist", network(&run.to_string())),
        ("Corefile", corefile(&run.to_string())),
    ];
    for (name, text) in files {
        fs::write(layout.run.join(name), text)?;
    }
    Ok(())
}

/// Who did what to which object; bodies may hold secrets and are left out.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ['/readyz*', '/livez*', '/healthz*', '/openapi/*', '/metrics']}
- {level: Metadata}
";

fn kubelet(run: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {run}/pki/ca.crt}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
clusterDNS: [{DNS_SERVICE}]
clusterDomain: {DOMAIN}
containerRuntimeEndpoint: unix://{run}/containerd.sock
# Below a cgroup of ours, so that `down` knows what to remove.
cgroupRoot: /behalf
cgroupDriver: cgroupfs
# A changed ConfigMap reaches its pods in seconds; the default is a minute.
syncFrequency: 10s
failSwapOn: false
failCgroupV1: false
maxPods: 200
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
tlsCertFile: {run}/pki/kubelet-serving.crt
tlsPrivateKeyFile: {run}/pki/kubelet-serving.key
resolvConf: {run}/resolv.conf
podLogsDir: {run}/log/pods
volumePluginDir: {run}/kubelet/plugins
"
    )
}

fn proxy(run: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {run}/proxy.conf}}
mode: nftables
clusterCIDR: {}
hostnameOverride: {NODE}
conntrack: {{maxPerCore: 0, min: 0}}
",
        PODS.join(",")
    )
}

fn containerd(run: &str, pause: &str) -> String {
    format!(
        r#"version = 2
root = "{run}/containerd-root"
state = "{run}/containerd-state"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{run}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Root without CAP_SYS_RESOURCE cannot set a negative oom_score_adj, and runc dies on it.
  restrict_oom_score_adj = true
  # Below our own directory, so that `down` knows whose they are.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{run}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
"#
    )
}

fn network(run: &str) -> String {
    let [four, six] = PODS;
    serde_json::json!({
        "cniVersion": "1.0.0", "name": "behalf-pods",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": format!("{run}/ipam"), "ranges": [[{"subnet": four}], [{"subnet": six}]],
                      "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn corefile(run: &str) -> String {
    format!(
        ".:53 {{
    errors
    ready {NODE_IP}:8181
    cache 5
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {run}/coredns.conf behalf
        ttl 5
    }}
}}
"
    )
}

/// The arguments of a program of the node.
#[must_use]
pub(super) fn arguments(layout: &Layout, name: &str) -> Vec<String> {
    let run = layout.run.display();
    let etcd = "http://127.0.0.1:2379";
    let text = match name {
        "etcd" => format!(
            "--data-dir {run}/etcd --unsafe-no-fsync --listen-client-urls {etcd} --advertise-client-urls {etcd} --listen-peer-urls http://127.0.0.1:2380"
        ),
        "containerd" => format!("-c {run}/containerd.toml"),
        // No default route: the address cannot be guessed. Without InternalIP first, logs and exec go to the node's name.
        "apiserver" => format!(
            "--etcd-servers={etcd} --secure-port=6443 --advertise-address={NODE_IP} --allow-privileged=true \
             --tls-cert-file={run}/pki/apiserver.crt --tls-private-key-file={run}/pki/apiserver.key --client-ca-file={run}/pki/ca.crt \
             --service-account-key-file={run}/pki/sa.pub --service-account-signing-key-file={run}/pki/sa.key \
             --service-account-issuer={ISSUER} --service-account-jwks-uri={ISSUER}/openid/v1/jwks \
             --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --service-cluster-ip-range={} \
             --kubelet-client-certificate={run}/pki/kubelet-client.crt --kubelet-client-key={run}/pki/kubelet-client.key \
             --kubelet-preferred-address-types=InternalIP \
             --audit-policy-file={run}/audit.yaml --audit-log-path={run}/log/audit.log --audit-log-maxsize=200 --audit-log-maxbackup=2",
            SERVICES.join(",")
        ),
        // The one node is not given up while the API server is away on purpose: Kubernetes takes the endpoints of every
        // Service from a node that it has not heard of for longer than this, ours and everybody else's.
        "controller-manager" => format!(
            "--node-monitor-grace-period=15m --kubeconfig={run}/controller-manager.conf --service-account-private-key-file={run}/pki/sa.key --root-ca-file={run}/pki/ca.crt \
             --cluster-signing-cert-file={run}/pki/ca.crt --cluster-signing-key-file={run}/pki/ca.key \
             --use-service-account-credentials --leader-elect=false --flex-volume-plugin-dir={run}/kubelet/plugins"
        ),
        "scheduler" => format!("--kubeconfig={run}/scheduler.conf --leader-elect=false"),
        "kubelet" => format!(
            "--config={run}/kubelet.yaml --kubeconfig={run}/kubelet.conf --hostname-override={NODE} --node-ip={NODE_IP},{NODE_IP6} --root-dir={run}/kubelet"
        ),
        "proxy" => format!("--config={run}/proxy.yaml"),
        "coredns" => format!("-conf {run}/Corefile"),
        _ => String::new(),
    };
    text.split_whitespace().map(str::to_owned).collect()
}

/// The Service of the cluster's DNS, which runs beside kubelet and not in a pod, and what it may read.
#[must_use]
pub(super) fn dns_objects() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec: {{clusterIP: {DNS_SERVICE}, ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kube-dns, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
addressType: IPv4
endpoints: [{{addresses: [{NODE_IP}]}}]
ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: system:coredns}}
rules:
- {{apiGroups: [''], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: system:coredns}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: system:coredns}}]
"
    )
}
