//! On random pods no check panics, what it says can be acted on, and a stricter level lets no more in.

use proptest::prelude::*;

use super::*;

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![prop::sample::select(choices).prop_map(Value::from), "[ -~]{0,6}".prop_map(Value::from)]
}

/// An object with some of these fields.
fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let values: Vec<_> = values.into_iter().map(|value| prop::option::weighted(0.4, value)).collect();
    values
        .prop_map(move |values| {
            let there = names.iter().zip(values);
            there.filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect::<Value>()
        })
        .boxed()
}

fn yes_or_no() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::from).boxed()
}

fn list(items: impl Strategy<Value = Value> + 'static, most: usize) -> BoxedStrategy<Value> {
    prop::collection::vec(items, 0..=most).prop_map(Value::from).boxed()
}

/// A type is never absent.
fn profile() -> BoxedStrategy<Value> {
    text(&["RuntimeDefault", "Localhost", "Unconfined"]).prop_map(|kind| json!({ "type": kind })).boxed()
}

fn security(of_container: bool) -> BoxedStrategy<Value> {
    let names = || list(text(&["ALL", "NET_RAW", "NET_BIND_SERVICE", "CHOWN", "SYS_ADMIN"]), 3);
    let mut fields = vec![
        ("runAsNonRoot", yes_or_no()),
        ("runAsUser", (0..3i64).prop_map(Value::from).boxed()),
        ("seccompProfile", profile()),
        ("appArmorProfile", profile()),
        (
            "seLinuxOptions",
            some(vec![
                ("type", text(&["container_t", "container_engine_t", "spc_t", ""]).boxed()),
                ("user", text(&["", "u"]).boxed()),
                ("role", text(&["", "r"]).boxed()),
            ]),
        ),
        ("windowsOptions", some(vec![("hostProcess", yes_or_no())])),
    ];
    if of_container {
        fields.extend([
            ("privileged", yes_or_no()),
            ("allowPrivilegeEscalation", yes_or_no()),
            ("procMount", text(&["Default", "Unmasked"]).boxed()),
            ("capabilities", some(vec![("add", names()), ("drop", names())])),
        ]);
    } else {
        let name = text(&["kernel.shm_rmid_forced", "net.ipv4.tcp_rmem", "kernel.msgmax"]);
        let sysctl = name.prop_map(|name| json!({ "name": name, "value": "1" }));
        fields.push(("sysctls", list(sysctl, 3)));
    }
    some(fields)
}

fn container() -> BoxedStrategy<Value> {
    let action = || {
        let host = text(&["", "10.0.0.1", "example.com"]);
        prop_oneof![
            host.prop_map(|host| json!({ "httpGet": { "port": 80, "host": host } })),
            text(&["", "h"]).prop_map(|host| json!({ "tcpSocket": { "port": 1, "host": host } })),
            Just(json!({ "exec": { "command": ["x"] } })),
        ]
        .boxed()
    };
    let port = (1..4u16, 0..3u16).prop_map(|(port, host)| json!({ "containerPort": port, "hostPort": host }));
    let rest = some(vec![
        ("securityContext", security(true)),
        ("ports", list(port, 3)),
        ("livenessProbe", action()),
        ("readinessProbe", action()),
        ("startupProbe", action()),
        ("lifecycle", some(vec![("postStart", action()), ("preStop", action())])),
    ]);
    ("[a-c]{1,2}", rest)
        .prop_map(|(name, mut container)| {
            container["name"] = name.into();
            container
        })
        .boxed()
}

fn pod() -> BoxedStrategy<Value> {
    let volume = prop_oneof![
        Just(json!({ "name": "v", "emptyDir": {} })),
        Just(json!({ "name": "v", "hostPath": { "path": "/" } })),
        Just(json!({ "name": "v", "nfs": { "path": "/", "server": "s" } })),
        Just(json!({ "name": "v" })),
    ];
    let spec = some(vec![
        ("hostNetwork", yes_or_no()),
        ("hostPID", yes_or_no()),
        ("hostIPC", yes_or_no()),
        ("hostUsers", yes_or_no()),
        ("os", text(&["linux", "windows"]).prop_map(|name| json!({ "name": name })).boxed()),
        ("securityContext", security(false)),
        ("volumes", list(volume, 3)),
        ("initContainers", list(container(), 2)),
        ("ephemeralContainers", list(container(), 2)),
        ("containers", list(container(), 3)),
    ]);
    let key = prop::sample::select(vec![
        "seccomp.security.alpha.kubernetes.io/pod",
        "container.seccomp.security.alpha.kubernetes.io/a",
        "container.apparmor.security.beta.kubernetes.io/a",
        "container.apparmor.security.beta.kubernetes.io/",
        "other",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec!["unconfined", "runtime/default", "localhost/x", ""])
            .prop_map(str::to_owned),
        any::<String>(),
    ];
    let annotations = prop::collection::btree_map(key.prop_map(str::to_owned), value, 0..3);
    (spec, annotations)
        .prop_map(|(spec, annotations)| json!({ "metadata": { "annotations": annotations }, "spec": spec }))
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_verdict_never_panics_and_its_remedies_leave_only_what_is_to_be_done_by_hand(
        mut pod in pod(),
        minor in 0..=NEWEST + 1,
    ) {
        let judged = |level, pod: &Value| {
            let pod = typed(pod.clone());
            let policy = LevelVersion { level, version: Version::V1(minor) };
            evaluate(policy, &pod.metadata, &pod.spec.unwrap())
        };
        prop_assert!(judged(Level::Privileged, &pod).allowed());
        let (baseline, restricted) = (judged(Level::Baseline, &pod), judged(Level::Restricted, &pod));
        // Windows pods are exempted from checks that replace others.
        let windows = pod["spec"]["os"]["name"] == "windows";
        prop_assert!(windows || baseline.allowed() || !restricted.allowed());
        for violation in baseline.violations.iter().chain(&restricted.violations) {
            prop_assert!(!violation.fields.is_empty() && !violation.remedies.is_empty());
            prop_assert!(!violation.reason.is_empty());
        }
        // One remedy may uncover another check: an explicit no hides a silence.
        let mut left = restricted;
        for _ in 0..4 {
            let remedies: Vec<_> = left.violations.iter().flat_map(|violation| &violation.remedies).collect();
            remedy::apply(remedies.into_iter(), &mut pod);
            left = judged(Level::Restricted, &pod);
        }
        for violation in &left.violations {
            prop_assert!(violation.remedies.iter().all(|remedy| remedy.change == Change::ByHand), "{violation:?}");
        }
    }
}
