//! Feature row B9: every field at both levels, for app, init, sidecar and ephemeral containers; and the refusals with
//! their words.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102::/var/cache/nginx:/sbin/nologin\napp:x:1000:1001::/home/app:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nwww:x:33:app\naudio:x:29:app,nginx\napp:x:1001:app\nextra:x:50000:app\n";

fn image(user: &str) -> ImageConfiguration {
    serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "config": {"User": user},
        "rootfs": {"type": "layers", "diff_ids": []}
    }))
    .unwrap()
}

fn pod(pod_context: Value, container_context: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "default", "uid": "u-1"},
        "spec": {"securityContext": pod_context, "containers": [
            {"name": "y", "image": "i", "securityContext": container_context}
        ]}
    }))
    .unwrap()
}

fn resolved_on(pod: &Pod, user: &str, node: &NodeFacts) -> Result<Effective, ConfigError> {
    let users = UserDatabase { passwd: Some(PASSWD), group: Some(GROUP) };
    let (kind, container) = containers(pod).remove(0);
    resolve(pod, &container, kind, &image(user), &users, node)
}

fn resolved(pod_context: Value, container_context: Value, user: &str) -> Result<Effective, ConfigError> {
    resolved_on(&pod(pod_context, container_context), user, &NodeFacts::default())
}

fn groups(effective: &Effective) -> Vec<u32> {
    effective.supplementary_groups.iter().map(|group| group.value).collect()
}

#[track_caller]
fn refused(result: Result<Effective, ConfigError>, reason: &str, message: &str) {
    let error = result.expect_err(message);
    assert_eq!((error.reason, error.message.as_str()), (reason, message));
}

/// One field at all four combinations of levels: container beats pod beats the default.
#[track_caller]
fn levels<T: PartialEq + std::fmt::Debug>(
    field: &str,
    at_pod: Option<(Value, T)>,
    at_container: (Value, T),
    default: (T, Origin),
    get: fn(&Effective) -> (T, Origin),
) {
    let neither = resolved(json!({}), json!({}), "").unwrap();
    assert_eq!(get(&neither), default, "{field} at no level");
    let container = resolved(json!({}), json!({field: at_container.0}), "").unwrap();
    assert_eq!(get(&container), (at_container.1, Origin::Container), "{field} at the container");
    if let Some((value, expected)) = at_pod {
        let only_pod = resolved(json!({field: value}), json!({}), "").unwrap();
        assert_eq!(get(&only_pod), (expected, Origin::Pod), "{field} at the pod");
        let both = resolved(json!({field: value}), json!({field: at_container.0}), "").unwrap();
        assert_eq!(get(&both), get(&container), "{field} at both: the container's counts");
    }
}

#[test]
fn each_field_has_its_precedence() {
    levels("runAsUser", Some((json!(1111), 1111)), (json!(2222), 2222), (0, Origin::Default), |e| {
        (e.uid.value, e.uid.origin)
    });
    levels("runAsGroup", Some((json!(1111), 1111)), (json!(2222), 2222), (0, Origin::Image), |e| {
        (e.gid.value, e.gid.origin)
    });
    levels("privileged", None, (json!(true), true), (false, Origin::Default), |e| {
        (e.privileged.value, e.privileged.origin)
    });
    levels("allowPrivilegeEscalation", None, (json!(false), true), (false, Origin::Default), |e| {
        (e.no_new_privs.value, e.no_new_privs.origin)
    });
    levels("readOnlyRootFilesystem", None, (json!(true), true), (false, Origin::Default), |e| {
        (e.read_only_root.value, e.read_only_root.origin)
    });
    levels(
        "procMount",
        None,
        (json!("Unmasked"), ProcMount::Unmasked),
        (ProcMount::Default, Origin::Default),
        |e| (e.proc_mount.value, e.proc_mount.origin),
    );
    levels(
        "seccompProfile",
        Some((json!({"type": "RuntimeDefault"}), Seccomp::RuntimeDefault)),
        (
            json!({"type": "Localhost", "localhostProfile": "a/b.json"}),
            Seccomp::Localhost("/var/lib/kubelet/seccomp/a/b.json".into()),
        ),
        (Seccomp::Unconfined, Origin::Default),
        |e| (e.seccomp.value.clone(), e.seccomp.origin),
    );
    levels(
        "appArmorProfile",
        Some((json!({"type": "Unconfined"}), None)),
        (json!({"type": "Unconfined"}), None),
        (None, Origin::Default),
        |e| (e.apparmor_profile.value.clone(), e.apparmor_profile.origin),
    );
}

#[test]
fn run_as_non_root_has_its_precedence() {
    let user = json!({"runAsUser": 5});
    let effective = |pod: Value, container: Value| {
        let mut container = container;
        container["runAsUser"] = user["runAsUser"].clone();
        resolved(pod, container, "").unwrap().run_as_non_root
    };
    let yes = json!({"runAsNonRoot": true});
    assert_eq!(effective(json!({}), json!({})), Field { value: false, origin: Origin::Default });
    assert_eq!(effective(yes.clone(), json!({})), Field { value: true, origin: Origin::Pod });
    assert_eq!(effective(json!({}), yes.clone()), Field { value: true, origin: Origin::Container });
    let no = json!({"runAsNonRoot": false});
    assert_eq!(effective(yes, no), Field { value: false, origin: Origin::Container });
}

#[test]
fn the_node_decides_seccomp_where_nobody_says() {
    let node = NodeFacts { seccomp_default: true, ..NodeFacts::default() };
    let pod_without = pod(json!({}), json!({}));
    let effective = resolved_on(&pod_without, "", &node).unwrap();
    assert_eq!(effective.seccomp, Field { value: Seccomp::RuntimeDefault, origin: Origin::Node });
    let privileged = resolved_on(&pod(json!({}), json!({"privileged": true})), "", &node).unwrap();
    assert_eq!(privileged.seccomp.value, Seccomp::Unconfined);
    let unconfined = pod(json!({"seccompProfile": {"type": "Unconfined"}}), json!({}));
    let effective = resolved_on(&unconfined, "", &node).unwrap();
    assert_eq!(effective.seccomp, Field { value: Seccomp::Unconfined, origin: Origin::Pod });
}

#[test]
fn the_images_user_is_respected() {
    for (user, container, uid, gid, uid_origin, home, groups_expected) in [
        ("", json!({}), 0, 0, Origin::Default, Some("/root"), vec![0]),
        ("nginx", json!({}), 101, 102, Origin::Image, Some("/var/cache/nginx"), vec![29, 102]),
        ("101", json!({}), 101, 102, Origin::Image, Some("/var/cache/nginx"), vec![29, 102]),
        ("101:7", json!({}), 101, 7, Origin::Image, Some("/var/cache/nginx"), vec![7, 29]),
        ("nginx:www", json!({}), 101, 33, Origin::Image, Some("/var/cache/nginx"), vec![29, 33]),
        ("app", json!({}), 1000, 1001, Origin::Image, Some("/home/app"), vec![29, 33, 1001, 50000]),
        ("4321", json!({}), 4321, 0, Origin::Image, None, vec![0]),
        // Only the image's own user has the image's own group.
        (
            "101:7",
            json!({"runAsUser": 1000}),
            1000,
            1001,
            Origin::Container,
            Some("/home/app"),
            vec![29, 33, 1001, 50000],
        ),
        ("101:7", json!({"runAsGroup": 9}), 101, 9, Origin::Image, Some("/var/cache/nginx"), vec![9, 29]),
    ] {
        let effective = resolved(json!({}), container.clone(), user).unwrap();
        let seen =
            (effective.uid.value, effective.gid.value, effective.uid.origin, effective.home.as_deref());
        assert_eq!(seen, (uid, gid, uid_origin, home), "{user} {container}");
        assert_eq!(groups(&effective), groups_expected, "{user} {container}");
    }
}

#[test]
fn users_that_cannot_be_are_refused() {
    let reason = "CreateContainerError";
    refused(
        resolved(json!({}), json!({}), "ghost"),
        reason,
        "unable to find user ghost: no matching entries in passwd file",
    );
    refused(
        resolved(json!({}), json!({}), "1:ghosts"),
        reason,
        "unable to find group ghosts: no matching entries in group file",
    );
    // CVE-2024-40635: 2^32 wrapped to root.
    refused(
        resolved(json!({}), json!({}), "4294967296"),
        reason,
        "uids and gids must be in range 0-2147483647: 4294967296",
    );
    assert!(resolved(json!({}), json!({"runAsUser": 4294967296i64}), "").is_err());
    assert!(resolved(json!({"supplementalGroups": [-1]}), json!({}), "").is_err());
}

#[test]
fn groups_are_merged_or_strict_and_hold_the_primary_one() {
    let user = json!({"runAsUser": 1000});
    for (context, expected) in [
        (json!({}), vec![29, 33, 1001, 50000]),
        (json!({"supplementalGroupsPolicy": "Merge"}), vec![29, 33, 1001, 50000]),
        (json!({"supplementalGroupsPolicy": "Strict"}), vec![1001]),
        (json!({"supplementalGroups": [2000, 3000, 2000]}), vec![29, 33, 1001, 2000, 3000, 50000]),
        (json!({"fsGroup": 555, "supplementalGroupsPolicy": "Strict"}), vec![555, 1001]),
        (
            json!({"fsGroup": 555, "supplementalGroups": [666, 777], "supplementalGroupsPolicy": "Strict", "runAsGroup": 1}),
            vec![1, 555, 666, 777],
        ),
    ] {
        let effective = resolved(context.clone(), user.clone(), "").unwrap();
        assert_eq!(groups(&effective), expected, "{context}");
        assert_eq!(effective.fs_group, context["fsGroup"].as_u64().map(|gid| gid as u32));
    }
    refused(
        resolved(json!({"supplementalGroupsPolicy": "Other"}), json!({}), ""),
        "CreateContainerConfigError",
        "spec.securityContext.supplementalGroupsPolicy: \"Other\" is not supported",
    );
}

#[test]
fn root_is_refused_where_it_must_not_be() {
    let reason = "CreateContainerConfigError";
    let non_root = json!({"runAsNonRoot": true});
    refused(
        resolved(non_root.clone(), json!({}), ""),
        reason,
        "container has runAsNonRoot and image will run as root (pod: \"x_default(u-1)\", container: y)",
    );
    refused(
        resolved(json!({}), non_root.clone(), "0:1000"),
        reason,
        "container has runAsNonRoot and image will run as root (pod: \"x_default(u-1)\", container: y)",
    );
    refused(
        resolved(json!({}), non_root.clone(), "nginx"),
        reason,
        "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root (pod: \"x_default(u-1)\", container: y)",
    );
    refused(
        resolved(json!({"runAsNonRoot": true, "runAsUser": 0}), json!({}), "nginx"),
        reason,
        "container's runAsUser breaks non-root policy (pod: \"x_default(u-1)\", container: y)",
    );
    assert!(resolved(json!({"runAsUser": 1}), non_root.clone(), "nginx").is_ok());
    assert!(resolved(json!({}), non_root, "101").is_ok());
}

#[test]
fn capabilities_are_added_and_dropped_in_the_runtimes_order() {
    let default: CapabilitySet = capabilities::DEFAULT.into_iter().collect();
    // CapBnd of a default container, as every Kubernetes node shows it.
    assert_eq!(default.bits(), 0xa804_25fb);
    let with =
        |names: &[&str]| names.iter().map(|name| Capability::parse(name).unwrap()).collect::<CapabilitySet>();
    let less = |set: CapabilitySet, name: &str| {
        let mut set = set;
        set.remove(Capability::parse(name).unwrap());
        set
    };
    let all = CapabilitySet::all();
    for (lists, expected) in [
        (json!({}), default),
        (json!({"drop": ["ALL"]}), CapabilitySet::EMPTY),
        (json!({"drop": ["all"]}), CapabilitySet::EMPTY),
        (json!({"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}), with(&["NET_ADMIN", "NET_RAW"])),
        (json!({"add": ["CAP_net_admin"], "drop": ["ALL"]}), with(&["NET_ADMIN"])),
        (json!({"add": ["ALL"]}), all),
        (json!({"add": ["ALL"], "drop": ["SYS_ADMIN"]}), less(all, "SYS_ADMIN")),
        (json!({"add": ["ALL"], "drop": ["ALL"]}), CapabilitySet::EMPTY),
        (json!({"drop": ["NET_RAW"]}), less(default, "NET_RAW")),
        // What is both added and dropped is dropped: drops come last.
        (json!({"add": ["NET_ADMIN"], "drop": ["NET_ADMIN"]}), default),
    ] {
        let effective = resolved(json!({}), json!({"capabilities": lists}), "").unwrap();
        let seen = effective.capabilities.value;
        assert_eq!(seen.bounding, expected, "{lists}");
        assert_eq!((seen.permitted, seen.effective), (expected, expected), "{lists}");
        assert_eq!((seen.inheritable, seen.ambient), (CapabilitySet::EMPTY, CapabilitySet::EMPTY), "{lists}");
    }
    let user =
        resolved(json!({}), json!({"runAsUser": 1, "capabilities": {"add": ["NET_ADMIN"]}}), "").unwrap();
    assert!(user.capabilities.value.bounding.contains(Capability::NET_ADMIN));
    assert!(user.capabilities.value.effective.is_empty(), "another uid than 0 has none after exec");
    let privileged =
        resolved(json!({}), json!({"privileged": true, "capabilities": {"drop": ["ALL"]}}), "").unwrap();
    assert_eq!(privileged.capabilities.value.bounding, all);
}

#[test]
fn capabilities_that_cannot_be_are_refused() {
    refused(
        resolved(json!({}), json!({"capabilities": {"add": ["FLY"]}}), ""),
        "CreateContainerError",
        "container y: securityContext.capabilities.add: unknown capability \"FLY\"",
    );
    assert!(resolved(json!({}), json!({"capabilities": {"drop": ["FLY"]}}), "").is_err());
    let mut poor = NodeFacts::default();
    poor.capabilities.remove(Capability::SYS_RESOURCE);
    let asks = pod(json!({}), json!({"capabilities": {"add": ["SYS_RESOURCE"]}}));
    refused(
        resolved_on(&asks, "", &poor),
        "CreateContainerError",
        "container y: securityContext.capabilities.add: node node-1 cannot give CAP_SYS_RESOURCE: it does not have it itself",
    );
    let privileged = resolved_on(&pod(json!({}), json!({"privileged": true})), "", &poor).unwrap();
    assert_eq!(privileged.capabilities.value.bounding, poor.capabilities);
}

#[test]
fn what_the_node_cannot_do_is_refused_by_name() {
    let config = "CreateContainerConfigError";
    refused(
        resolved(json!({"seLinuxOptions": {"level": "s0"}}), json!({}), ""),
        config,
        "spec.securityContext.seLinuxOptions: SELinux is not enabled on node node-1",
    );
    refused(
        resolved(json!({}), json!({"seLinuxOptions": {"level": "s0"}}), ""),
        config,
        "container y: securityContext.seLinuxOptions: SELinux is not enabled on node node-1",
    );
    refused(
        resolved(json!({}), json!({"windowsOptions": {"hostProcess": true}}), ""),
        config,
        "container y: securityContext.windowsOptions: not possible on a Linux node",
    );
    for profile in [json!({"type": "RuntimeDefault"}), json!({"type": "Localhost", "localhostProfile": "p"})]
    {
        for (at_pod, at_container) in [
            (json!({"appArmorProfile": profile}), json!({})),
            (json!({}), json!({"appArmorProfile": profile})),
        ] {
            refused(
                resolved(at_pod, at_container, ""),
                "AppArmor",
                "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host",
            );
        }
    }
    let no_seccomp = NodeFacts { seccomp: false, ..NodeFacts::default() };
    let asks = pod(json!({"seccompProfile": {"type": "RuntimeDefault"}}), json!({}));
    assert!(resolved_on(&asks, "", &no_seccomp).unwrap_err().message.contains("seccompProfile"));
    let mut users = pod(json!({}), json!({}));
    users.spec.as_mut().unwrap().host_users = Some(false);
    let error = resolved_on(&users, "", &NodeFacts::default()).unwrap_err();
    assert!(error.message.starts_with("spec.hostUsers: false is not supported"), "{error}");
    refused(
        resolved(json!({}), json!({"privileged": true, "allowPrivilegeEscalation": false}), ""),
        config,
        "container y: securityContext: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    );
}

#[test]
fn seccomp_profiles_stay_in_their_directory() {
    let with = |profile: Value| resolved(json!({}), json!({"seccompProfile": profile}), "");
    refused(
        with(json!({"type": "Localhost"})),
        "CreateContainerConfigError",
        "localhostProfile must be set if seccompProfile type is Localhost.",
    );
    for path in ["../x", "/etc/x", "a/../../x", "./.."] {
        assert!(with(json!({"type": "Localhost", "localhostProfile": path})).is_err(), "{path}");
    }
    assert!(with(json!({"type": "Other"})).is_err());
}

#[test]
fn sysctls_are_safe_namespaced_and_not_the_nodes() {
    let cases: [(&str, bool, bool, Result<&str, &str>); 10] = [
        ("net.ipv4.ip_unprivileged_port_start", false, false, Ok("net.ipv4.ip_unprivileged_port_start")),
        ("net/ipv4/tcp_syncookies", false, false, Ok("net.ipv4.tcp_syncookies")),
        ("kernel.shm_rmid_forced", false, false, Ok("kernel.shm_rmid_forced")),
        ("net.core.somaxconn", false, false, Ok("net.core.somaxconn")),
        ("kernel.msgmax", false, false, Err("\"kernel.msgmax\" not allowlisted")),
        ("vm.swappiness", false, false, Err("\"vm.swappiness\" not allowlisted")),
        ("kernel.panic", false, false, Err("\"kernel.panic\" not allowlisted")),
        ("net...sys", false, false, Err("\"net...sys\" not allowlisted")),
        (
            "net.ipv4.tcp_syncookies",
            true,
            false,
            Err("\"net.ipv4.tcp_syncookies\" not allowed with host net enabled"),
        ),
        (
            "kernel.shm_rmid_forced",
            false,
            true,
            Err("\"kernel.shm_rmid_forced\" not allowed with host ipc enabled"),
        ),
    ];
    // A node may allow what is unsafe, and still nothing that is not namespaced.
    let node = NodeFacts {
        allowed_unsafe_sysctls: vec!["net.core.*".to_owned(), "kernel.panic".to_owned()],
        ..NodeFacts::default()
    };
    for (name, host_network, host_ipc, expected) in cases {
        let mut pod = pod(json!({"sysctls": [{"name": name, "value": "1"}]}), json!({}));
        let spec = pod.spec.as_mut().unwrap();
        (spec.host_network, spec.host_ipc) = (Some(host_network), Some(host_ipc));
        match (resolve_pod(&pod, &node), expected) {
            (Ok(effective), Ok(key)) => assert_eq!(effective.sysctls[key], "1"),
            (Err(error), Err(message)) => {
                assert_eq!(error.message, format!("Pod was rejected: forbidden sysctl: {message}"));
                assert_eq!((error.reason, error.rejects_pod), ("SysctlForbidden", true));
            }
            (seen, _) => panic!("{name}: {seen:?}"),
        }
    }
}

#[test]
fn host_names_are_the_pods_or_the_nodes() {
    let long = "a".repeat(62) + "-b";
    for (spec, name, expected) in [
        (json!({}), "x", "x"),
        (json!({"hostname": "h"}), "x", "h"),
        (json!({"hostNetwork": true, "hostname": "h"}), "x", "node-1"),
        (json!({}), long.as_str(), &"a".repeat(62)),
        (
            json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
            "x",
            "h.s.default.svc.cluster.local",
        ),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
                .unwrap();
        assert_eq!(resolve_pod(&pod, &NodeFacts::default()).unwrap().hostname, expected);
    }
}

#[test]
fn init_sidecar_and_ephemeral_containers_are_resolved_the_same() {
    let context = json!({"runAsUser": 7, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {
        "securityContext": {"runAsUser": 5, "runAsGroup": 6},
        "initContainers": [
            {"name": "i", "securityContext": context},
            {"name": "s", "restartPolicy": "Always", "securityContext": context}
        ],
        "containers": [{"name": "c", "securityContext": context}],
        "ephemeralContainers": [{"name": "e", "securityContext": context}]
    }}))
    .unwrap();
    let all = containers(&pod);
    let kinds: Vec<ContainerKind> = all.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [ContainerKind::Init, ContainerKind::Sidecar, ContainerKind::App, ContainerKind::Ephemeral]
    );
    for (kind, container) in &all {
        let users = UserDatabase::default();
        let effective = resolve(&pod, container, *kind, &image(""), &users, &NodeFacts::default()).unwrap();
        let seen = (effective.kind, effective.uid.value, effective.gid.value, effective.read_only_root.value);
        assert_eq!(seen, (*kind, 7, 6, true));
        assert!(effective.capabilities.value.bounding.is_empty());
    }
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    proptest::option::of(strategy).boxed()
}

prop_compose! {
    fn any_context(pod: bool)(
        user in maybe(-2i64..3_000_000_000),
        group in maybe(-2i64..3_000_000_000),
        non_root in maybe(any::<bool>()),
        privileged in maybe(any::<bool>()),
        escalation in maybe(any::<bool>()),
        read_only in maybe(any::<bool>()),
        proc_mount in maybe(prop_oneof![Just("Default"), Just("Unmasked"), Just("x")]),
        seccomp in maybe(prop_oneof![Just("Unconfined"), Just("RuntimeDefault"), Just("Localhost"), Just("?")]),
        add in proptest::collection::vec(prop_oneof![Just("ALL"), Just("NET_ADMIN"), Just("cap_chown"), Just("")], 0..3),
        drop in proptest::collection::vec(prop_oneof![Just("ALL"), Just("NET_RAW"), Just("NO_SUCH")], 0..3),
        groups in proptest::collection::vec(-1i64..70_000, 0..4),
        fs_group in maybe(-1i64..70_000),
        policy in maybe(prop_oneof![Just("Merge"), Just("Strict")]),
    ) -> Value {
        let mut context = json!({"runAsUser": user, "runAsGroup": group, "runAsNonRoot": non_root,
            "seccompProfile": seccomp.map(|kind| json!({"type": kind, "localhostProfile": "p.json"}))});
        let more = if pod {
            json!({"supplementalGroups": groups, "fsGroup": fs_group, "supplementalGroupsPolicy": policy})
        } else {
            json!({"privileged": privileged, "allowPrivilegeEscalation": escalation,
                "readOnlyRootFilesystem": read_only, "procMount": proc_mount,
                "capabilities": {"add": add, "drop": drop}})
        };
        context.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        context
    }
}

proptest! {
    #[test]
    fn resolving_never_panics_and_the_container_beats_the_pod(
        at_pod in any_context(true),
        at_container in any_context(false),
        user in prop_oneof![Just(""), Just("nginx"), Just("1000:33"), Just("app:www"), Just("99999999999"), Just(":")],
        passwd in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let pod = pod(at_pod.clone(), at_container.clone());
        let (kind, container) = containers(&pod).remove(0);
        let noise = UserDatabase { passwd: Some(&passwd), group: Some(&passwd) };
        let _ = resolve(&pod, &container, kind, &image(user), &noise, &NodeFacts::default());
        let Ok(effective) = resolved_on(&pod, user, &NodeFacts::default()) else { return Ok(()) };
        for (field, seen) in [
            ("runAsUser", (i64::from(effective.uid.value), effective.uid.origin)),
            ("runAsGroup", (i64::from(effective.gid.value), effective.gid.origin)),
        ] {
            if let Some(value) = at_container[field].as_i64() {
                prop_assert_eq!(seen, (value, Origin::Container));
            } else if let Some(value) = at_pod[field].as_i64() {
                prop_assert_eq!(seen, (value, Origin::Pod));
            }
        }
        if effective.run_as_non_root.value {
            prop_assert_ne!(effective.uid.value, 0, "runAsNonRoot holds");
        }
        let sets = effective.capabilities.value;
        prop_assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
        prop_assert_eq!(sets.effective.intersection(sets.bounding), sets.effective);
        let groups = groups(&effective);
        prop_assert!(groups.contains(&effective.gid.value));
        prop_assert!(groups.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
