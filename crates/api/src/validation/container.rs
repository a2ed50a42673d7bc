//! Containers of the three kinds: names, images, ports, environment, mounts, probes, hooks.

use super::view::At;
use super::volume::{self, Volumes};
use super::{names, resources, security};
use crate::field::{Error, ErrorList};

/// The fields that environment variables may take from the pod.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Every container of a pod spec.
pub(super) fn all(errors: &mut ErrorList, spec: &At<'_>, volumes: &Volumes<'_>) {
    let containers = spec.child("containers");
    let list = containers.items();
    let mut names = Vec::new();
    if list.is_empty() {
        errors.push(containers.required(""));
    }
    for container in &list {
        common(errors, spec, container, volumes);
        unique(errors, container, &mut names);
        running(errors, spec, container);
        if container.child("restartPolicy").is_set() {
            errors.push(container.child("restartPolicy").forbidden("may not be set for non-init containers"));
        }
    }
    host_ports(errors, &list);

    for container in spec.child("initContainers").items() {
        common(errors, spec, &container, volumes);
        container.child("restartPolicy").one_of_set(errors, &["Always"]);
        unique(errors, &container, &mut names);
        // They run one by one, so only the ports of one container can collide.
        host_ports(errors, std::slice::from_ref(&container));
        if container.child("restartPolicy").str() == "Always" {
            running(errors, spec, &container);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.child(field).is_set() {
                    errors.push(
                        container
                            .child(field)
                            .forbidden("may not be set for init containers without restartPolicy=Always"),
                    );
                }
            }
        }
    }

    let lasting = names.clone();
    for container in spec.child("ephemeralContainers").items() {
        common(errors, spec, &container, volumes);
        only_for_pod(errors, &container);
        unique(errors, &container, &mut names);
        let target = container.child("targetContainerName");
        if !target.str().is_empty() && !lasting.contains(&target.str()) {
            errors.push(Error::not_found(&target.path, target.str()));
        }
        for field in [
            "ports",
            "resources",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resizePolicy",
        ] {
            if !container.child(field).is_empty() {
                errors.push(container.child(field).forbidden("cannot be set for an Ephemeral Container"));
            }
        }
        for mount in container.child("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.child(field).str().is_empty() {
                    errors.push(mount.child(field).forbidden("cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

fn unique<'a>(errors: &mut ErrorList, container: &At<'a>, seen: &mut Vec<&'a str>) {
    let name = container.child("name");
    if name.str().is_empty() {
        return;
    }
    if seen.contains(&name.str()) {
        errors.push(Error::duplicate(&name.path, name.str()));
    } else {
        seen.push(name.str());
    }
}

/// Pods refuse what templates let through.
pub(super) fn only_for_pod(errors: &mut ErrorList, container: &At<'_>) {
    let image = container.child("image");
    if image.str().trim() != image.str() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

fn common(errors: &mut ErrorList, spec: &At<'_>, container: &At<'_>, volumes: &Volumes<'_>) {
    let at = |field: &str| container.child(field);
    let name = at("name");
    if name.str().is_empty() {
        errors.push(name.required(""));
    } else {
        name.invalid_each(errors, names::dns_label(name.str()));
    }
    if at("image").str().is_empty() {
        errors.push(at("image").required(""));
    }
    at("terminationMessagePolicy").one_of(errors, &["File", "FallbackToLogsOnError"]);
    ports(errors, &at("ports"));
    env(errors, &at("env"));
    env_from(errors, &at("envFrom"));
    mounts(errors, container, volumes);
    devices(errors, container, volumes);
    at("imagePullPolicy").one_of(errors, &["Always", "IfNotPresent", "Never"]);
    resources::requirements(errors, &at("resources"));
    resize_policy(errors, spec, &at("resizePolicy"));
    security::container(errors, spec, &at("securityContext"));
}

fn resize_policy(errors: &mut ErrorList, spec: &At<'_>, list: &At<'_>) {
    let mut seen = Vec::new();
    for policy in list.items() {
        let name = policy.child("resourceName");
        if seen.contains(&name.str()) {
            errors.push(Error::duplicate(&policy.path, name.str()));
        }
        seen.push(name.str());
        let restart = policy.child("restartPolicy").with_path(list.path.clone());
        name.with_path(list.path.clone()).one_of(errors, &["cpu", "memory"]);
        restart.one_of(errors, &["NotRequired", "RestartContainer"]);
        if spec.child("restartPolicy").str() == "Never" && restart.str() != "NotRequired" {
            errors.push(restart.invalid("must be 'NotRequired' when `restartPolicy` is 'Never'"));
        }
    }
}

fn ports(errors: &mut ErrorList, ports: &At<'_>) {
    let mut seen = Vec::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.str().is_empty() {
            let wrong = names::port_name(name.str());
            if !wrong.is_empty() {
                name.invalid_each(errors, wrong);
            } else if seen.contains(&name.str()) {
                errors.push(Error::duplicate(&name.path, name.str()));
            } else {
                seen.push(name.str());
            }
        }
        let number = port.child("containerPort");
        match number.int().unwrap_or(0) {
            0 => errors.push(number.required("")),
            _ => number.in_range(errors, 1, 65535),
        }
        if port.child("hostPort").int().unwrap_or(0) != 0 {
            port.child("hostPort").in_range(errors, 1, 65535);
        }
        port.child("protocol").one_of(errors, &["SCTP", "TCP", "UDP"]);
        // Upstream leaves this to the node, where it fails late; a rule is made from it here.
        let host = port.child("hostIP");
        if !host.str().is_empty() {
            host.invalid_each(errors, names::ip(host.str()));
        }
    }
}

/// Two containers may not ask for the same port of the node.
fn host_ports(errors: &mut ErrorList, containers: &[At<'_>]) {
    let mut seen = Vec::new();
    for port in containers.iter().flat_map(|c| c.child("ports").items()) {
        let number = port.child("hostPort").int().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", port.child("protocol").str(), port.child("hostIP").str());
        if seen.contains(&key) {
            errors.push(Error::duplicate(&port.child("hostPort").path, key));
        } else {
            seen.push(key);
        }
    }
}

fn env(errors: &mut ErrorList, list: &At<'_>) {
    for var in list.items() {
        let name = var.child("name");
        if name.str().is_empty() {
            errors.push(name.required(""));
        } else {
            name.invalid_each(errors, names::env_name(name.str()));
        }
        let source = var.child("valueFrom");
        if !source.is_set() {
            continue;
        }
        let mut sources = 0;
        for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
            let at = source.child(kind);
            if !at.is_set() {
                continue;
            }
            sources += 1;
            match kind {
                "fieldRef" => field_ref(errors, &at, &ENV_FIELDS),
                "resourceFieldRef" => resource_ref(errors, &at, false),
                "fileKeyRef" => {
                    for field in ["volumeName", "path", "key"] {
                        if at.child(field).str().is_empty() {
                            errors.push(at.child(field).required(""));
                        }
                    }
                }
                _ => key_ref(errors, &at),
            }
        }
        let wrong = if sources == 0 {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        } else if !var.child("value").str().is_empty() {
            "may not be specified when `value` is not empty"
        } else if sources > 1 {
            "may not have more than one field specified at a time"
        } else {
            continue;
        };
        errors.push(Error::invalid(&source.path, "", wrong));
    }
}

fn key_ref(errors: &mut ErrorList, at: &At<'_>) {
    let (name, key) = (at.child("name"), at.child("key"));
    for message in names::dns_subdomain(name.str()) {
        errors.push(Error::invalid(&name.path, name.str(), message));
    }
    if key.str().is_empty() {
        errors.push(key.required(""));
    } else {
        key.invalid_each(errors, names::config_key(key.str()));
    }
}

/// A field of the pod: one of `allowed`, or one label or annotation by key.
pub(super) fn field_ref(errors: &mut ErrorList, at: &At<'_>, allowed: &[&str]) {
    let (version, field) = (at.child("apiVersion"), at.child("fieldPath"));
    for required in [&version, &field] {
        if required.str().is_empty() {
            errors.push(required.required(""));
            return;
        }
    }
    let text = field.str();
    let subscript = text.strip_suffix("']").and_then(|t| t.split_once("['"));
    let known = allowed.contains(&text)
        || ENV_FIELDS.contains(&text)
        || ["metadata.labels", "metadata.annotations", "spec.host"]
            .contains(&subscript.map_or(text, |s| s.0));
    if version.str() != "v1" || !known {
        let why = if version.str() != "v1" {
            format!("unsupported pod version: {}", version.str())
        } else {
            format!("field label not supported: {text}")
        };
        errors.push(field.invalid(format!("error converting fieldPath: {why}")));
        return;
    }
    match subscript {
        Some(("metadata.annotations", key)) => {
            errors.extend(
                names::qualified_name(&key.to_lowercase())
                    .into_iter()
                    .map(|m| Error::invalid(&at.path, key.to_lowercase(), m)),
            );
        }
        Some(("metadata.labels", key)) => {
            errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(&at.path, key, m)));
        }
        Some((path, _)) => errors.push(Error::invalid(&at.path, path, "does not support subscript")),
        None if !allowed.contains(&text) => errors.push(Error::not_supported(&field.path, text, allowed)),
        None => {}
    }
}

/// A limit or request of a container; `in_volume` where the container must be named.
pub(super) fn resource_ref(errors: &mut ErrorList, at: &At<'_>, in_volume: bool) {
    const ALLOWED: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let (container, resource, divisor) =
        (at.child("containerName"), at.child("resource"), at.child("divisor"));
    let name = resource.str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if in_volume && container.str().is_empty() {
        errors.push(container.required(""));
    } else if name.is_empty() {
        errors.push(resource.required(""));
    } else if !ALLOWED.contains(&name) && !huge {
        errors.push(Error::not_supported(&resource.path, name, &ALLOWED));
    }
    let text = divisor.value().as_str().map(str::to_owned).unwrap_or_default();
    if text.is_empty() || text == "0" {
        return;
    }
    const BYTES: [&str; 13] =
        ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (fits, what) = match name.split_once('.') {
        Some((_, "cpu")) => {
            (["1m", "1"].contains(&text.as_str()), "values 1m and 1 are supported with the cpu resource")
        }
        _ => (
            BYTES.contains(&text.as_str()),
            match name.split_once('.') {
                Some((_, "ephemeral-storage")) => {
                    "values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local \
                     ephemeral storage resource"
                }
                Some((_, "memory")) => {
                    "values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory \
                     resource"
                }
                _ => {
                    "values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages \
                     resource"
                }
            },
        ),
    };
    if !fits {
        errors.push(Error::invalid(&divisor.path, name, format!("only divisor's {what}")));
    }
}

fn env_from(errors: &mut ErrorList, list: &At<'_>) {
    for source in list.items() {
        let prefix = source.child("prefix");
        if !prefix.str().is_empty() {
            prefix.invalid_each(errors, names::env_name(prefix.str()));
        }
        let mut sources = 0;
        for kind in ["configMapRef", "secretRef"] {
            let at = source.child(kind);
            if at.is_set() {
                sources += 1;
                let name = at.child("name");
                if name.str().is_empty() {
                    errors.push(name.required(""));
                } else {
                    name.invalid_each(errors, names::dns_subdomain(&names::mask_trailing_dash(name.str())));
                }
            }
        }
        match sources {
            0 => errors.push(Error::invalid(
                &list.path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(Error::invalid(
                &list.path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn mounts(errors: &mut ErrorList, container: &At<'_>, volumes: &Volumes<'_>) {
    let list = container.child("volumeMounts");
    let devices = container.child("volumeDevices").items();
    let privileged = container.child("securityContext").child("privileged").bool();
    let mut points = Vec::new();
    for mount in list.items() {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        if name.str().is_empty() {
            errors.push(name.required(""));
        }
        let volume = volumes.get(name.str());
        if volume.is_none() {
            errors.push(Error::not_found(&name.path, name.str()));
        }
        if path.str().is_empty() {
            errors.push(path.required(""));
        }
        if points.contains(&path.str()) {
            errors.push(path.invalid("must be unique"));
        }
        points.push(path.str());
        if devices.iter().any(|d| d.child("name").str() == name.str()) {
            errors.push(name.invalid("must not already exist in volumeDevices"));
        }
        if devices.iter().any(|d| d.child("devicePath").str() == path.str()) {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        // Upstream reports these on the list, not on the mount.
        let on_list = |field: &str| mount.child(field).with_path(list.path.child(field));
        let (sub, expr) = (on_list("subPath"), on_list("subPathExpr"));
        volume::descending_path(errors, &sub);
        if !expr.str().is_empty() {
            if !sub.str().is_empty() {
                errors.push(
                    mount.child("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive"),
                );
            }
            volume::descending_path(errors, &expr);
        }
        let propagation = on_list("mountPropagation");
        propagation.one_of_set(errors, &["Bidirectional", "HostToContainer", "None"]);
        if propagation.str() == "Bidirectional" && !privileged {
            errors.push(
                propagation
                    .forbidden("Bidirectional mount propagation is available only to privileged containers"),
            );
        }
        let recursive = on_list("recursiveReadOnly");
        recursive.one_of_set(errors, &["Disabled", "Enabled", "IfPossible"]);
        if matches!(recursive.str(), "Enabled" | "IfPossible") {
            if !mount.child("readOnly").bool() {
                errors.push(recursive.forbidden("may only be specified when readOnly is true"));
            }
            if !matches!(propagation.str(), "" | "None") {
                errors.push(
                    recursive
                        .forbidden("may only be specified when mountPropagation is None or not specified"),
                );
            }
        }
    }
}

fn devices(errors: &mut ErrorList, container: &At<'_>, volumes: &Volumes<'_>) {
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for device in container.child("volumeDevices").items() {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        if name.str().is_empty() {
            errors.push(name.required(""));
        }
        if names.contains(&name.str()) {
            errors.push(name.invalid("must be unique"));
        }
        match volumes.get(name.str()) {
            None => errors.push(Error::not_found(&name.path, name.str())),
            Some(volume)
                if !volume.child("persistentVolumeClaim").is_set() && !volume.child("ephemeral").is_set() =>
            {
                errors.push(name.invalid(
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ));
            }
            Some(_) => {}
        }
        if path.str().is_empty() {
            errors.push(path.required(""));
        }
        if paths.contains(&path.str()) {
            errors.push(path.invalid("must be unique"));
        }
        if path.str().split('/').any(|part| part == "..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        }
        names.push(name.str());
        paths.push(path.str());
    }
}

/// Hooks and probes of a container that lives on.
fn running(errors: &mut ErrorList, spec: &At<'_>, container: &At<'_>) {
    let grace = spec.child("terminationGracePeriodSeconds").int();
    let lifecycle = container.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if lifecycle.child(hook).is_set() {
            handler(errors, &lifecycle.child(hook), grace, &["exec", "httpGet", "tcpSocket", "sleep"]);
        }
    }
    let signal = lifecycle.child("stopSignal");
    if signal.is_set() && !signal.str().starts_with("SIG") {
        errors.push(signal.invalid("must be the name of a signal"));
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.child(name);
        if !probe.is_set() {
            continue;
        }
        handler(errors, &probe, grace, &["exec", "httpGet", "tcpSocket", "grpc"]);
        for field in
            ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            probe.child(field).non_negative(errors);
        }
        let own_grace = probe.child("terminationGracePeriodSeconds");
        if own_grace.int().is_some_and(|n| n <= 0) {
            errors.push(own_grace.invalid("must be greater than 0"));
        }
        if name == "readinessProbe" {
            if own_grace.is_set() {
                errors.push(own_grace.invalid("must not be set for readinessProbes"));
            }
        } else if probe.child("successThreshold").int().unwrap_or(0) != 1 {
            errors.push(probe.child("successThreshold").invalid("must be 1"));
        }
    }
}

fn handler(errors: &mut ErrorList, at: &At<'_>, grace: Option<i64>, kinds: &[&str]) {
    let mut count = 0;
    for kind in kinds {
        let action = at.child(kind);
        if !action.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" if action.child("command").is_empty() => errors.push(action.child("command").required("")),
            "httpGet" => {
                if action.child("path").str().is_empty() {
                    errors.push(action.child("path").required(""));
                }
                action.child("port").port_number_or_name(errors);
                let scheme = action.child("scheme");
                if !["HTTP", "HTTPS"].contains(&scheme.str()) {
                    errors.push(Error::not_supported(&scheme.path, scheme.str(), &["HTTP", "HTTPS"]));
                }
                let headers = action.child("httpHeaders");
                for header in headers.items() {
                    let name = header.child("name").str();
                    for message in names::http_header(name) {
                        errors.push(Error::invalid(&headers.path, name, message));
                    }
                }
            }
            "tcpSocket" | "grpc" => action.child("port").port_number_or_name(errors),
            "sleep" => {
                let seconds = action.child("seconds").int().unwrap_or(0);
                if let Some(grace) = grace
                    && (seconds < 0 || seconds > grace)
                {
                    errors.push(Error::invalid(
                        &action.path,
                        seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    ));
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        errors.push(at.required("must specify a handler type"));
    }
}
