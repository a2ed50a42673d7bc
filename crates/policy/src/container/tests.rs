//! Complete Specs of the chapter's manifests, held against files that people read (`tests/specs/`), and the rules that
//! make them, one by one. `UPDATE_SPECS=1 cargo test -p policy` writes the files again: read the difference.

use std::{fs, path::PathBuf};

use oci_spec::{image::ImageConfiguration, runtime::Spec};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::{
    node_facts::{CgroupMode, Device, DeviceKind},
    security_context::{ConfigError, UserDatabase, containers, resolve, resolve_pod},
};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n";

fn image(config: Value) -> ImageConfiguration {
    serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": []}
    }))
    .unwrap()
}

fn busybox() -> ImageConfiguration {
    image(json!({"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"]}))
}

fn node() -> NodeFacts {
    NodeFacts {
        cgroup: CgroupMode::Hybrid,
        devices: vec![Device {
            path: "/dev/vda".into(),
            kind: DeviceKind::Block,
            major: 254,
            minor: 0,
            mode: 0o660,
            uid: 0,
            gid: 6,
        }],
        ..NodeFacts::default()
    }
}

struct Given {
    pod: Pod,
    image: ImageConfiguration,
    env: Vec<(String, String)>,
    mounts: Vec<VolumeMount>,
    files: PodFiles,
    node: NodeFacts,
    profile: Option<Vec<u8>>,
}

impl Given {
    fn new(spec: Value) -> Self {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "x", "namespace": "default", "uid": "u-1"}, "spec": spec
        }));
        Self {
            pod: pod.unwrap(),
            image: busybox(),
            env: Vec::new(),
            mounts: Vec::new(),
            files: PodFiles::default(),
            node: node(),
            profile: None,
        }
    }

    fn container(container: Value) -> Self {
        let mut container = container;
        container["name"] = json!("c");
        Self::new(json!({"containers": [container]}))
    }

    fn spec_of(&self, index: usize) -> Result<Spec, ConfigError> {
        let (kind, container) = containers(&self.pod).remove(index);
        let users = UserDatabase { passwd: Some(PASSWD), group: None };
        let effective = resolve(&self.pod, &container, kind, &self.image, &users, &self.node)?;
        let pod = resolve_pod(&self.pod, &self.node)?;
        let cgroups = format!("/cofferdam/podu-1/{}_0", container.name);
        spec(&ContainerInput {
            pod: &self.pod,
            container: &container,
            kind,
            effective: &effective,
            image: &self.image,
            env: &self.env,
            mounts: &self.mounts,
            hostname: &pod.hostname,
            cgroups_path: Path::new(&cgroups),
            namespaces: NamespacePaths::default(),
            root: Path::new("rootfs"),
            files: self.files.clone(),
            seccomp_profile: self.profile.as_deref(),
            node: &self.node,
        })
    }

    fn json(&self) -> Value {
        in_order(serde_json::to_value(self.spec_of(0).unwrap()).unwrap())
    }
}

/// oci-spec keeps capabilities in a hash set: their order is nobody's.
fn in_order(mut spec: Value) -> Value {
    for (_, set) in spec["process"]["capabilities"].as_object_mut().into_iter().flatten() {
        if let Some(names) = set.as_array_mut() {
            names.sort_by_key(|name| name.as_str().map(str::to_owned));
        }
    }
    spec
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A container's volume mounts as the node prepares them.
fn prepared(container: &Container) -> Vec<VolumeMount> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| VolumeMount {
            source: MountSource::Path(
                Path::new("/var/lib/cofferdam/pods/u-1/volumes/kubernetes.io~empty-dir").join(&mount.name),
            ),
            destination: mount.mount_path.clone().into(),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::None,
            nosuid_nodev: true,
        })
        .collect()
}

#[test]
fn the_chapters_pods_have_the_specs_on_file() {
    let update = std::env::var_os("UPDATE_SPECS").is_some();
    for name in [
        "01-hostnetwork",
        "04-hostpid-hostipc",
        "05-default-security",
        "06-secure-pod",
        "07-privileged-pod",
        "08-capabilities",
        "09-shared-volume",
        "10-supplemental-groups",
        "11-fsgroup",
    ] {
        let manifest = repository("../../examples/chapter").join(format!("{name}.yaml"));
        let text = fs::read_to_string(&manifest).unwrap();
        let mut pod = Pod::deserialize(serde_yaml::Deserializer::from_str(&text)).unwrap();
        pod.metadata.namespace = Some("default".to_owned());
        pod.metadata.uid = Some("u-1".to_owned());
        let mut given = Given::new(json!({"containers": []}));
        let all = containers(&pod);
        if all[0].1.image.as_deref() == Some("nginx") {
            given.image = image(json!({
                "Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["nginx", "-g", "daemon off;"],
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NGINX_VERSION=1"]
            }));
        }
        given.pod = pod;
        given.files = PodFiles {
            hosts: Some("/pod/etc-hosts".into()),
            resolv_conf: Some("/pod/resolv.conf".into()),
            hostname: Some("/pod/hostname".into()),
            termination_log: Some("/pod/termination-log".into()),
            shm: None,
        };
        for (index, (_, container)) in all.iter().enumerate() {
            given.mounts = prepared(container);
            let spec = in_order(serde_json::to_value(given.spec_of(index).unwrap()).unwrap());
            let text = serde_json::to_string_pretty(&spec).unwrap() + "\n";
            let file = repository("tests/specs").join(format!("{name}.{}.json", container.name));
            if update {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, &text).unwrap();
            }
            let expected = fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_SPECS=1 writes it", file.display()));
            assert_eq!(text, expected, "{} differs; UPDATE_SPECS=1 writes it again", file.display());
        }
    }
}

#[test]
fn commands_and_arguments_are_put_together_as_in_kubernetes() {
    let config = json!({"Entrypoint": ["/entry"], "Cmd": ["cmd"]});
    for (container, image_config, expected) in [
        (json!({}), config.clone(), vec!["/entry", "cmd"]),
        (json!({"command": ["own"]}), config.clone(), vec!["own"]),
        (json!({"args": ["a"]}), config.clone(), vec!["/entry", "a"]),
        (json!({"command": ["own"], "args": ["a"]}), config, vec!["own", "a"]),
        (json!({}), json!({"Cmd": ["sh", "-c"]}), vec!["sh", "-c"]),
        (json!({"args": ["a"]}), json!({"Cmd": ["sh"]}), vec!["a"]),
        (
            json!({"command": ["echo", "$(V) $(NO) $$(V) $(PATH)"]}),
            json!({"Env": ["PATH=/image"]}),
            vec!["echo", "value $(NO) $(V) $(PATH)"],
        ),
    ] {
        let mut given = Given::container(container.clone());
        given.image = image(image_config);
        given.env = vec![("V".to_owned(), "value".to_owned())];
        assert_eq!(given.json()["process"]["args"], json!(expected), "{container}");
    }
    let mut given = Given::container(json!({}));
    given.image = image(json!({}));
    let error = given.spec_of(0).unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), ("CreateContainerError", "no command specified"));
}

#[test]
fn the_environment_is_the_images_then_the_pods() {
    let mut given = Given::container(json!({"tty": true}));
    given.image =
        image(json!({"Cmd": ["x"], "Env": ["PATH=/image", "A=image", "B=image", "HOSTNAME=image"]}));
    given.env = vec![("B".to_owned(), "pod".to_owned()), ("C".to_owned(), "a=b".to_owned())];
    let spec = given.json();
    assert_eq!(
        spec["process"]["env"],
        json!(["PATH=/image", "HOSTNAME=image", "TERM=xterm", "A=image", "B=pod", "C=a=b", "HOME=/root"])
    );
    assert_eq!(spec["process"]["terminal"], json!(true));
    let mut bare = Given::container(json!({"securityContext": {"runAsUser": 12}}));
    bare.image = image(json!({"Cmd": ["x"]}));
    assert_eq!(
        bare.json()["process"]["env"],
        json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=x", "HOME=/"])
    );
}

#[test]
fn the_working_directory_is_the_containers_the_images_or_the_root() {
    for (own, of_image, expected) in
        [(None, None, "/"), (None, Some("/image"), "/image"), (Some("/own"), Some("/image"), "/own")]
    {
        let mut given = Given::container(json!({"workingDir": own}));
        given.image = image(json!({"Cmd": ["x"], "WorkingDir": of_image}));
        assert_eq!(given.json()["process"]["cwd"], json!(expected));
    }
    assert!(Given::container(json!({"workingDir": "relative"})).spec_of(0).is_err());
}

fn mount_of(spec: &Value, destination: &str) -> Value {
    let mounts = spec["mounts"].as_array().unwrap();
    let found: Vec<&Value> = mounts.iter().filter(|mount| mount["destination"] == destination).collect();
    assert!(found.len() <= 1, "{destination} is mounted once");
    found.first().map_or(Value::Null, |mount| (*mount).clone())
}

fn volume(destination: &str) -> VolumeMount {
    VolumeMount {
        source: MountSource::Path("/v".into()),
        destination: destination.into(),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
        nosuid_nodev: true,
    }
}

#[test]
fn volumes_are_mounted_parents_first_and_take_the_place_of_ours() {
    let mut given = Given::container(json!({}));
    given.files.hosts = Some("/pod/hosts".into());
    given.mounts = vec![
        volume("/a/b/c"),
        VolumeMount { read_only: true, ..volume("/a") },
        VolumeMount { source: MountSource::Descriptor(3), ..volume("/dev/shm") },
        volume("/etc/hosts"),
        volume("relative/../x/./y"),
    ];
    let spec = given.json();
    assert_eq!(mount_of(&spec, "/a")["options"], json!(["rbind", "rprivate", "ro", "nosuid", "nodev"]));
    assert_eq!(mount_of(&spec, "/dev/shm")["source"], json!("fd:3"));
    assert_eq!(mount_of(&spec, "/etc/hosts")["source"], json!("/v"));
    assert_ne!(mount_of(&spec, "/x/y"), Value::Null);
    let order: Vec<usize> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap().matches('/').count())
        .collect();
    assert!(order.windows(2).all(|pair| pair[0] <= pair[1]), "{order:?}");
}

#[test]
fn nothing_is_mounted_over_proc_sys_or_the_root() {
    for destination in ["/proc", "/proc/self", "/tmp/../proc", "proc", "/sys", "/sys/fs/cgroup", "/", "/x/.."]
    {
        let mut given = Given::container(json!({}));
        given.mounts = vec![volume(destination)];
        let error = given.spec_of(0).expect_err(destination);
        assert!(error.message.contains("nothing may be mounted on"), "{error}");
    }
    let mut privileged = Given::container(json!({"securityContext": {"privileged": true}}));
    privileged.mounts = vec![volume("/sys/fs/bpf")];
    assert!(privileged.spec_of(0).is_ok());
    privileged.mounts = vec![volume("/proc")];
    assert!(privileged.spec_of(0).is_err());
}

#[test]
fn propagation_reaches_the_root_and_both_ways_only_when_privileged() {
    let with = |privileged: bool, propagation: Propagation| {
        let mut given = Given::container(json!({"securityContext": {"privileged": privileged}}));
        given.mounts = vec![VolumeMount { propagation, nosuid_nodev: false, ..volume("/a") }];
        given
    };
    let spec = with(false, Propagation::HostToContainer).json();
    assert_eq!(mount_of(&spec, "/a")["options"], json!(["rbind", "rslave", "rw"]));
    assert_eq!(spec["linux"]["rootfsPropagation"], json!("rslave"));
    let spec = with(true, Propagation::Bidirectional).json();
    assert_eq!(mount_of(&spec, "/a")["options"], json!(["rbind", "rshared", "rw"]));
    assert_eq!(spec["linux"]["rootfsPropagation"], json!("rshared"));
    assert!(with(false, Propagation::Bidirectional).spec_of(0).is_err());
}

#[test]
fn recursive_read_only_needs_the_kernel() {
    let mut given = Given::container(json!({}));
    given.mounts = vec![VolumeMount { read_only: true, recursive_read_only: true, ..volume("/a") }];
    assert_eq!(
        mount_of(&given.json(), "/a")["options"],
        json!(["rbind", "rprivate", "ro", "rro", "nosuid", "nodev"])
    );
    given.node.recursive_read_only = false;
    assert!(given.spec_of(0).unwrap_err().message.contains("recursiveReadOnly"));
}

fn namespaces(spec: &Value) -> Vec<&str> {
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    list.iter().map(|namespace| namespace["type"].as_str().unwrap()).collect()
}

#[test]
fn namespaces_are_those_that_are_not_the_nodes() {
    for (spec, expected) in [
        (json!({}), vec!["mount", "pid", "ipc", "network", "uts", "cgroup"]),
        (json!({"hostNetwork": true}), vec!["mount", "pid", "ipc", "cgroup"]),
        (json!({"hostPID": true}), vec!["mount", "ipc", "network", "uts", "cgroup"]),
        (json!({"hostIPC": true}), vec!["mount", "pid", "network", "uts", "cgroup"]),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c"}]);
        let given = Given::new(spec.clone());
        let seen = given.json();
        assert_eq!(namespaces(&seen), expected, "{spec}");
        assert_eq!(seen["hostname"].is_null(), spec["hostNetwork"] == true, "{spec}");
        let shm = mount_of(&seen, "/dev/shm");
        assert_eq!(shm["type"] == "bind", spec["hostIPC"] == true, "{spec}");
    }
    let privileged = Given::container(json!({"securityContext": {"privileged": true}})).json();
    assert!(!namespaces(&privileged).contains(&"cgroup"));
}

#[test]
fn privileged_and_unmasked_lift_what_they_say() {
    let default = Given::container(json!({})).json();
    assert_eq!(default["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
    assert_eq!(default["linux"]["readonlyPaths"].as_array().unwrap().len(), 5);
    assert!(default["linux"]["devices"].is_null());
    let unmasked = Given::container(json!({"securityContext": {"procMount": "Unmasked"}})).json();
    assert_eq!(
        (&unmasked["linux"]["maskedPaths"], &unmasked["linux"]["readonlyPaths"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(mount_of(&unmasked, "/sys")["options"], json!(["nosuid", "noexec", "nodev", "ro"]));
    let privileged = Given::container(json!({"securityContext": {"privileged": true}})).json();
    assert_eq!(privileged["linux"]["maskedPaths"], json!([]));
    assert_eq!(privileged["linux"]["devices"][0]["path"], json!("/dev/vda"));
    assert_eq!(
        privileged["linux"]["resources"]["devices"],
        json!([{"allow": true, "type": "a", "access": "rwm"}])
    );
    for destination in ["/sys", "/sys/fs/cgroup"] {
        let options = mount_of(&privileged, destination)["options"].clone();
        assert!(options.as_array().unwrap().contains(&json!("rw")), "{destination} {options}");
    }
}

#[test]
fn requests_and_limits_become_the_cgroups() {
    for (resources, cpu, memory) in [
        (json!({}), json!({"shares": 2}), Value::Null),
        (json!({"requests": {"cpu": "250m", "memory": "1Gi"}}), json!({"shares": 256}), Value::Null),
        (
            json!({"limits": {"cpu": "500m", "memory": "64Mi"}}),
            json!({"shares": 512, "quota": 50000, "period": 100000}),
            json!({"limit": 67108864}),
        ),
        (
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}),
            json!({"shares": 102, "quota": 100000, "period": 100000}),
            Value::Null,
        ),
    ] {
        let spec = Given::container(json!({"resources": resources})).json();
        let seen = &spec["linux"]["resources"];
        assert_eq!((&seen["cpu"], &seen["memory"]), (&cpu, &memory), "{resources}");
    }
    let mut given =
        Given::container(json!({"resources": {"limits": {"memory": "64Mi", "hugepages-2Mi": "4Mi"}}}));
    given.node.swap_controller = true;
    given.node.pod_pids_limit = Some(100);
    given.node.cgroup = CgroupMode::V2;
    let seen = given.json()["linux"]["resources"].clone();
    assert_eq!(seen["memory"], json!({"limit": 67108864, "swap": 67108864}));
    assert_eq!(seen["pids"], json!({"limit": 100}));
    assert_eq!(seen["hugepageLimits"], json!([{"pageSize": "2MB", "limit": 4194304}]));
    assert_eq!(seen["unified"], json!({"memory.oom.group": "1"}));
}

#[test]
fn the_pods_cgroup_is_limited_where_every_container_is() {
    let resources = |spec: Value| {
        let given = Given::new(spec);
        serde_json::to_value(pod_resources(&given.pod, &given.node)).unwrap()
    };
    let limited = json!({"limits": {"cpu": "1", "memory": "64Mi"}});
    let both = resources(json!({"containers": [
        {"name": "a", "resources": limited}, {"name": "b", "resources": limited}]}));
    assert_eq!(both["memory"], json!({"limit": 134217728}));
    assert_eq!(both["cpu"], json!({"shares": 2048, "quota": 200000, "period": 100000}));
    let one = resources(json!({"containers": [{"name": "a", "resources": limited}, {"name": "b"}]}));
    assert_eq!((&one["memory"], &one["cpu"]), (&Value::Null, &json!({"shares": 1024})));
    let init = resources(json!({
        "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "3", "memory": "1Gi"}}}],
        "containers": [{"name": "a", "resources": limited}]
    }));
    assert_eq!(init["memory"], json!({"limit": 1073741824}));
    assert_eq!(init["cpu"]["shares"], json!(3072));
}

#[test]
fn the_oom_score_is_as_low_as_the_node_can() {
    let guaranteed = json!({"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}});
    let mut given = Given::container(guaranteed);
    assert_eq!(given.json()["process"]["oomScoreAdj"], json!(-997));
    given.node.min_oom_score_adj = 0;
    assert_eq!(given.json()["process"]["oomScoreAdj"], json!(0));
}

#[test]
fn seccomp_profiles_are_put_into_the_spec() {
    let with = |profile: Value| Given::container(json!({"securityContext": {"seccompProfile": profile}}));
    assert!(with(json!({"type": "Unconfined"})).json()["linux"]["seccomp"].is_null());
    let default = with(json!({"type": "RuntimeDefault"})).json();
    assert_eq!(default["linux"]["seccomp"]["defaultAction"], json!("SCMP_ACT_ERRNO"));
    let mut localhost = with(json!({"type": "Localhost", "localhostProfile": "p.json"}));
    let error = localhost.spec_of(0).unwrap_err();
    assert_eq!(
        error.message,
        "cannot load seccomp profile \"/var/lib/kubelet/seccomp/p.json\": open /var/lib/kubelet/seccomp/p.json: no such file or directory"
    );
    localhost.profile = Some(b"{\"defaultAction\": \"SCMP_ACT_LOG\"}".to_vec());
    assert_eq!(localhost.json()["linux"]["seccomp"]["defaultAction"], json!("SCMP_ACT_LOG"));
    localhost.profile = Some(b"{".to_vec());
    assert!(localhost.spec_of(0).unwrap_err().message.contains("p.json"));
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    for (container, field) in [
        (json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}), "volumeDevices"),
        (json!({"resources": {"claims": [{"name": "gpu"}]}}), "resources.claims"),
    ] {
        let error = Given::container(container).spec_of(0).unwrap_err();
        assert_eq!(error.message, format!("container c: {field} is not supported"));
    }
}

#[test]
fn every_capability_has_its_oci_name() {
    for capability in crate::security_context::CapabilitySet::all().iter() {
        let written = serde_json::to_value(process::oci_capability(capability).unwrap()).unwrap();
        assert_eq!(written, json!(capability.name()));
    }
}

proptest! {
    /// Whatever text stands in a container: a Spec or an error, and a Spec keeps its promises.
    #[test]
    fn making_a_spec_never_panics(
        command in proptest::collection::vec("[a-z$(){}\\PC]{0,12}", 0..3),
        cwd in "[/a.\\PC]{0,10}",
        destinations in proptest::collection::vec("[/a-z.]{0,12}", 0..4),
        privileged in any::<bool>(),
        cpu in "[0-9.mkKMGiEe-]{0,6}",
        message_path in "[/a-z.]{0,10}",
    ) {
        let mut given = Given::container(json!({
            "command": command, "workingDir": cwd, "terminationMessagePath": message_path,
            "securityContext": {"privileged": privileged},
            "resources": {"limits": {"cpu": cpu, "memory": cpu}}
        }));
        given.files.termination_log = Some("/pod/log".into());
        given.mounts = destinations.iter().map(|destination| volume(destination)).collect();
        let Ok(spec) = given.spec_of(0) else { return Ok(()) };
        let process = spec.process().as_ref().unwrap();
        prop_assert!(process.cwd().is_absolute());
        prop_assert!(process.args().as_ref().is_some_and(|args| !args.is_empty()));
        for mount in spec.mounts().as_ref().unwrap() {
            let destination = mount.destination();
            prop_assert!(destination.is_absolute());
            prop_assert!(mount.typ().as_deref() != Some("bind") || !destination.starts_with("/proc"));
        }
    }
}
