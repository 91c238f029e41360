//! A node: a network, mount and host-name namespace of its own with containerd, kubelet and kube-proxy in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::component::{Components, Spec};
use super::control_plane::ControlPlane;
use super::network::{Place, in_namespace};
use super::requirements;
use crate::pki::Authority;
use crate::process::Program;
use crate::wait::eventually;

/// The image of which every pod's sandbox is made.
pub(super) const SANDBOX: &str = "localhost/busybox:e2e";
/// The address of the cluster's DNS.
pub(super) const DNS: &str = "10.96.0.10";

const START: Duration = Duration::from_mins(1);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes what programs of a node write outside of its folder private to the node: sockets and locks, logs of pods,
/// plugins' state. Nothing that they need is there on a machine that runs no Kubernetes.
const MOUNTS: &str = "
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/netns /run/lock
mount --bind \"$1/lib\" /var/lib
mount --bind \"$1/log\" /var/log
echo \"$2\" >/proc/sys/kernel/hostname
echo ready >\"$1/ready\"
exec sleep infinity
";

/// A node whose programs are started one by one.
pub(super) struct Node<'a> {
    plane: &'a ControlPlane,
    place: Place,
    folder: PathBuf,
    /// Keeps the namespaces.
    holder: Program,
    /// The cgroup below which all cgroups of the cluster are.
    cgroup: &'a str,
}

impl<'a> Node<'a> {
    /// Makes the namespaces and the files.
    pub(super) async fn prepare(
        control_plane: &'a ControlPlane,
        authority: &Authority,
        cgroup: &'a str,
        place: Place,
    ) -> Result<Self> {
        let folder = control_plane.folder.join(place.name);
        for part in ["lib", "log", "cni", "kubelet"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let name = place.name;
        control_plane.user(
            authority,
            name,
            "system:nodes",
            &format!("system:node:{name}"),
            &[name, &place.address.to_string()],
        )?;
        let folder_text = folder.display().to_string();
        let mut holder = Program::start(
            name,
            Path::new("/usr/bin/nsenter"),
            [
                &in_namespace(name),
                "unshare",
                "--mount",
                "--uts",
                "--",
                "sh",
                "-e",
                "-c",
                MOUNTS,
                "holder",
                &folder_text,
                name,
            ],
            &[("PATH", PATH)],
            control_plane.logs.join(format!("{name}.log")),
        )?;
        eventually("the node has its namespaces", START, async || {
            holder.check_running()?;
            Ok(fs::metadata(folder.join("ready"))?)
        })
        .await?;
        let node = Self {
            plane: control_plane,
            place,
            folder,
            holder,
            cgroup,
        };
        node.write_configuration()?;
        Ok(node)
    }

    /// The process whose namespaces are those of the node.
    pub(super) fn into_holder(self) -> Program {
        self.holder
    }

    /// Starts containerd.
    pub(super) fn start_containerd(&self, components: &mut Components) -> Result<()> {
        let config = self.file("containerd.toml");
        // The runtime and its shim are looked up in the path.
        let path = format!("{}:{PATH}", self.plane.programs.display());
        let mut spec = self.spec("containerd", vec![format!("--config={config}")]);
        spec.environment = vec![("PATH", path)];
        components.add(spec)
    }

    /// Gives containerd the images, when it answers.
    pub(super) async fn import(&self, images: &[PathBuf]) -> Result<()> {
        let answers = async || self.ctr(&["version"]).await;
        eventually("containerd answers", START, answers).await?;
        for image in images {
            let image = image.display().to_string();
            self.ctr(&["--namespace", "k8s.io", "images", "import", &image])
                .await?;
        }
        Ok(())
    }

    /// Starts what needs the API server.
    pub(super) fn join(&self, components: &mut Components) -> Result<()> {
        let Place {
            name,
            address,
            zone,
            ..
        } = self.place;
        components.add(self.spec(
            "kubelet",
            vec![
                format!("--config={}", self.file("kubelet.yaml")),
                format!(
                    "--kubeconfig={}",
                    self.plane.file(&format!("{name}.kubeconfig"))
                ),
                format!("--root-dir={}", self.file("kubelet")),
                format!("--hostname-override={name}"),
                format!("--node-ip={address}"),
                format!(
                    "--node-labels=topology.kubernetes.io/zone={zone},topology.kubernetes.io/region=e2e"
                ),
            ],
        ))?;
        components.add(self.spec(
            "kube-proxy",
            vec![format!("--config={}", self.file("kube-proxy.yaml"))],
        ))
    }

    fn write_configuration(&self) -> Result<()> {
        let Place { name, pods, .. } = self.place;
        let folder = self.folder.display();
        let plugins = requirements::cni_plugins()?;
        // Each pod is behind a link of its own: every packet of a pod, to itself as well, is routed and so seen by
        // kube-proxy's rules.
        fs::write(
            self.folder.join("cni/10-pods.conflist"),
            format!(
                r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "ptp", "mtu": 1500, "ipMasq": false, "ipam": {{
    "type": "host-local", "dataDir": "{folder}/addresses",
    "ranges": [[{{"subnet": "{pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
            ),
        )?;
        fs::write(
            self.folder.join("containerd.toml"),
            format!(
                r#"version = 3
root = "{folder}/containerd"
state = "{folder}/containers"
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/containerd-ttrpc.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{snapshotter}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{SANDBOX}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a score cannot be lowered.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{folder}/cni"
"#,
                snapshotter = requirements::snapshotter(&self.folder),
                plugins = plugins.display(),
            ),
        )?;
        fs::write(
            self.folder.join("kubelet.yaml"),
            format!(
                "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {authority}}}}}
authorization: {{mode: AlwaysAllow}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix://{folder}/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}/{name}
failCgroupV1: false
failSwapOn: false
podLogsDir: {folder}/log/pods
volumePluginDir: {folder}/plugins
clusterDomain: cluster.local
clusterDNS: [{DNS}]
# The machine's own servers are out of reach.
resolvConf: \"\"
# Images were imported, they cannot be pulled: a full disk must not remove them.
imageGCHighThresholdPercent: 100
evictionHard: {{}}
localStorageCapacityIsolation: false
maxPods: 200
",
                authority = self.plane.file("ca.crt"),
                certificate = self.plane.file(&format!("{name}.crt")),
                key = self.plane.file(&format!("{name}.key")),
                cgroup = self.cgroup,
            ),
        )?;
        fs::write(
            self.folder.join("kube-proxy.yaml"),
            format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
hostnameOverride: {name}
clientConnection: {{kubeconfig: {kubeconfig}}}
# The size of the table of connections is the machine's.
conntrack: {{maxPerCore: 0}}
",
                kubeconfig = self.plane.file("proxy.kubeconfig"),
            ),
        )?;
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A program in the namespaces of the node.
    fn spec(&self, program: &str, arguments: Vec<String>) -> Spec {
        let name = format!("{program}-{}", self.place.name);
        let mut inside = vec![
            format!("--target={}", self.holder.id()),
            "--net".to_owned(),
            "--mount".to_owned(),
            "--uts".to_owned(),
            self.plane.programs.join(program).display().to_string(),
        ];
        inside.extend(arguments);
        Spec {
            log: self.plane.logs.join(format!("{name}.log")),
            name,
            program: PathBuf::from("/usr/bin/nsenter"),
            arguments: inside,
            environment: vec![("PATH", PATH.to_owned())],
        }
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("nsenter")
            .args([&format!("--target={}", self.holder.id()), "--mount"])
            .arg(self.plane.programs.join("ctr"))
            .args(["--address", &self.file("containerd.sock")])
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await?;
        let problem = String::from_utf8_lossy(&output.stderr);
        output
            .status
            .success()
            .then_some(())
            .with_context(|| format!("ctr {}: {}", arguments.join(" "), problem.trim()))
    }
}
