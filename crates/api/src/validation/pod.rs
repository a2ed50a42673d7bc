//! Pods and pod templates: what must hold of their specs as a whole.

use super::view::At;
use super::{container, metadata, names, resources, scheduling, security, volume};
use crate::field::{Error, ErrorList};

/// Which of the two holds the spec: some rules are for pods only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Pod,
    Template,
}

pub(super) fn pod(errors: &mut ErrorList, root: &At<'_>) {
    let meta = root.child("metadata");
    let spec = root.child("spec");
    pod_annotations(errors, &meta.child("annotations"), &spec);
    self::spec(errors, &spec, meta.child("name").str(), Holder::Pod);
    for list in ["containers", "initContainers"] {
        for container in spec.child(list).items() {
            container::only_for_pod(errors, &container);
        }
    }
}

/// What holds of a pod's creation alone.
pub(super) fn create_only(errors: &mut ErrorList, root: &At<'_>) {
    let spec = root.child("spec");
    if !spec.child("ephemeralContainers").is_empty() {
        errors.push(spec.child("ephemeralContainers").forbidden("cannot be set on create"));
    }
    if !spec.child("nodeName").str().is_empty() && !spec.child("schedulingGates").is_empty() {
        errors.push(
            spec.child("nodeName").forbidden("cannot be set until all schedulingGates have been cleared"),
        );
    }
}

/// A `PodTemplateSpec`.
pub(super) fn template(errors: &mut ErrorList, template: &At<'_>) {
    let meta = template.child("metadata");
    let spec = template.child("spec");
    metadata::labels(errors, &meta.child("labels"));
    metadata::annotations(errors, &meta.child("annotations"));
    pod_annotations(errors, &meta.child("annotations"), &spec);
    self::spec(errors, &spec, "", Holder::Template);
    if !spec.child("ephemeralContainers").is_empty() {
        errors.push(
            spec.child("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template"),
        );
    }
}

pub(super) fn binding(errors: &mut ErrorList, root: &At<'_>) {
    let target = root.child("target");
    if !matches!(target.child("kind").str(), "" | "Node") {
        let kind = target.child("kind");
        errors.push(Error::not_supported(&kind.path, kind.value(), &["Node", "<empty>"]));
    }
    if target.child("name").str().is_empty() {
        errors.push(target.child("name").required(""));
    }
}

/// Annotations that mean something to a pod.
pub(super) fn pod_annotations(errors: &mut ErrorList, annotations: &At<'_>, spec: &At<'_>) {
    for (key, value) in annotations.entries() {
        match key {
            "kubernetes.io/config.mirror" if spec.child("nodeName").str().is_empty() => {
                errors.push(value.invalid("must set spec.nodeName if mirror pod annotation is set"));
            }
            "controller.kubernetes.io/pod-deletion-cost" if value.str().parse::<i32>().is_err() => {
                errors.push(value.invalid("must be a 32bit integer"));
            }
            _ => {}
        }
    }
}

/// `name` is the pod's, "" where it is not known (templates).
fn spec(errors: &mut ErrorList, spec: &At<'_>, name: &str, holder: Holder) {
    let at = |field: &str| spec.child(field);
    let grace = at("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.push(grace.required(""));
    }
    let volumes = volume::volumes(errors, &at("volumes"), name);
    container::all(errors, spec, &volumes);
    host_network(errors, spec, holder);
    at("restartPolicy").one_of(errors, &["Always", "OnFailure", "Never"]);
    at("dnsPolicy").one_of(errors, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    metadata::labels(errors, &at("nodeSelector"));
    security::pod(errors, spec);
    for secret in at("imagePullSecrets").items() {
        if secret.entries().iter().any(|(key, _)| *key != "name") {
            errors.push(secret.invalid("only name may be set"));
        }
    }
    scheduling::affinity(errors, &at("affinity"));
    dns_config(errors, spec);
    for gate in at("readinessGates").items() {
        let kind = gate.child("conditionType");
        kind.invalid_each(errors, names::qualified_name(kind.str()));
    }
    scheduling_gates(errors, &at("schedulingGates"));
    scheduling::spread(errors, &at("topologySpreadConstraints"));
    if at("hostUsers").opt_bool() == Some(false) {
        for (field, written) in
            [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if at(field).bool() {
                errors.push(at(written).forbidden("when `pod.Spec.HostUsers` is false"));
            }
        }
    }
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let value = at(field);
        if !value.str().is_empty() {
            value.invalid_each(errors, names::dns_subdomain(value.str()));
        }
    }
    at("activeDeadlineSeconds").in_range(errors, 1, i64::from(i32::MAX));
    for field in ["hostname", "subdomain"] {
        let value = at(field);
        if !value.str().is_empty() {
            value.invalid_each(errors, names::dns_label(value.str()));
        }
    }
    scheduling::tolerations(errors, &at("tolerations"));
    for alias in at("hostAliases").items() {
        let ip = alias.child("ip");
        ip_address(errors, &ip);
        for host in alias.child("hostnames").items() {
            host.invalid_each(errors, names::dns_subdomain(host.str()));
        }
    }
    at("preemptionPolicy").one_of_set(errors, &["Never", "PreemptLowerPriority"]);
    resources::quantities(errors, &at("overhead"));
    if at("resources").is_set() {
        resources::requirements(errors, &at("resources"));
    }
    os(errors, spec);
}

fn ip_address(errors: &mut ErrorList, ip: &At<'_>) {
    for message in names::ip(ip.str()) {
        errors.push(Error::invalid(&ip.path, ip.str(), message));
    }
}

/// With `hostNetwork` a container's port is the node's.
fn host_network(errors: &mut ErrorList, spec: &At<'_>, holder: Holder) {
    if !spec.child("hostNetwork").bool() {
        return;
    }
    for port in spec.child("containers").items().iter().flat_map(|c| c.child("ports").items()) {
        let host = port.child("hostPort");
        let number = host.int().unwrap_or(0);
        let wants = holder == Holder::Pod || number != 0;
        if wants && number != port.child("containerPort").int().unwrap_or(0) {
            errors.push(Error::invalid(
                &host.path,
                number,
                "must match `containerPort` when `hostNetwork` is true",
            ));
        }
    }
}

fn dns_config(errors: &mut ErrorList, spec: &At<'_>) {
    let config = spec.child("dnsConfig");
    let servers = config.child("nameservers");
    if spec.child("dnsPolicy").str() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errors
                .push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.items().len() > 3 {
        errors.push(servers.invalid("must not have more than 3 nameservers"));
    }
    for server in servers.items() {
        ip_address(errors, &server);
    }
    let searches = config.child("searches");
    let list = searches.strings();
    if list.len() > 32 {
        errors.push(searches.invalid("must not have more than 32 search paths"));
    }
    if list.join(" ").len() > 2048 {
        errors.push(
            searches.invalid("must not have more than 2048 characters (including spaces) in the search list"),
        );
    }
    for search in searches.items() {
        let text = search.str();
        if text != "." {
            let text = text.strip_suffix('.').unwrap_or(text);
            for message in names::dns_search(text) {
                errors.push(Error::invalid(&search.path, text, message));
            }
        }
    }
    for option in config.child("options").items() {
        if option.child("name").str().is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn scheduling_gates(errors: &mut ErrorList, gates: &At<'_>) {
    let mut seen = Vec::new();
    for gate in gates.items() {
        let name = gate.child("name").str();
        for message in names::qualified_name(name) {
            errors.push(Error::invalid(&gate.path, name, message));
        }
        if seen.contains(&name) {
            errors.push(Error::duplicate(&gate.path, name));
        }
        seen.push(name);
    }
}

/// `os.name`, and what a pod for the other system may not ask for.
fn os(errors: &mut ErrorList, spec: &At<'_>) {
    let os = spec.child("os");
    if !os.is_set() {
        return;
    }
    let name = os.child("name");
    name.one_of(errors, &["linux", "windows"]);
    let contexts = || {
        let containers = ["containers", "initContainers", "ephemeralContainers"];
        let containers = containers.map(|list| spec.child(list).items()).into_iter().flatten();
        containers.map(|c| c.child("securityContext")).collect::<Vec<_>>()
    };
    let pod = spec.child("securityContext");
    match name.str() {
        "linux" => {
            for context in std::iter::once(pod).chain(contexts()) {
                let options = context.child("windowsOptions");
                if options.is_set() {
                    errors.push(options.forbidden("windows options cannot be set for a linux pod"));
                }
            }
        }
        "windows" => {
            for field in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
                let field = spec.child(field);
                if field.is_set() && (field.bool() || field.path.as_str().ends_with("hostUsers")) {
                    errors.push(field.forbidden("cannot be set for a windows pod"));
                }
            }
            const FIELDS: [&str; 15] = [
                "appArmorProfile",
                "seLinuxOptions",
                "seccompProfile",
                "fsGroup",
                "fsGroupChangePolicy",
                "sysctls",
                "runAsUser",
                "runAsGroup",
                "supplementalGroups",
                "supplementalGroupsPolicy",
                "capabilities",
                "readOnlyRootFilesystem",
                "privileged",
                "allowPrivilegeEscalation",
                "procMount",
            ];
            for context in std::iter::once(pod).chain(contexts()) {
                for field in FIELDS.map(|f| context.child(f)) {
                    if field.is_set() {
                        errors.push(field.forbidden("cannot be set for a windows pod"));
                    }
                }
            }
        }
        _ => {}
    }
}
