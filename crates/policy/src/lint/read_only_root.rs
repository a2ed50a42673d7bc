//! With a read-only root, an image that writes needs a volume at each place it writes to. What well-known images write to is
//! listed here, as their Dockerfiles and entrypoints have it.

use super::{Finding, Lint, Severity};
use crate::pod_security::PodView;

pub(super) const LINT: Lint = Lint {
    id: "read-only-root-needs-volume",
    severity: Severity::Error,
    about: "A container has a read-only root and no volume where its image writes.",
    fix: "Mount an emptyDir (or a claim, for data that must last) at each place named.",
    run,
};

/// The last part of an image's name, and where it writes; each place has the names it goes by.
const WRITERS: &[(&str, &[&[&str]])] = &[
    ("nginx", &[&["/var/cache/nginx"], &["/var/run", "/run"]]),
    ("nginx-unprivileged", &[&["/tmp"]]),
    ("httpd", &[&["/usr/local/apache2/logs"]]),
    ("redis", &[&["/data"]]),
    ("valkey", &[&["/data"]]),
    (
        "postgres",
        &[&["/var/lib/postgresql", "/var/lib/postgresql/data"], &["/var/run/postgresql", "/var/run", "/run"]],
    ),
    ("mysql", &[&["/var/lib/mysql"], &["/var/run/mysqld", "/var/run", "/run"], &["/tmp"]]),
    ("mariadb", &[&["/var/lib/mysql"], &["/run/mysqld", "/run", "/var/run"], &["/tmp"]]),
    ("mongo", &[&["/data/db"], &["/tmp"]]),
    ("rabbitmq", &[&["/var/lib/rabbitmq"]]),
    ("wordpress", &[&["/var/www/html"], &["/var/run/apache2", "/var/run", "/run"], &["/tmp"]]),
    ("grafana", &[&["/var/lib/grafana"]]),
    ("prometheus", &[&["/prometheus"]]),
];

fn run(pod: &PodView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for container in pod.containers() {
        if container.security.and_then(|security| security.read_only_root_filesystem) != Some(true) {
            continue;
        }
        let image = container.image.unwrap_or_default();
        let Some((_, places)) = WRITERS.iter().find(|(name, _)| *name == short_name(image)) else { continue };
        let is_writable = |place: &&&str| {
            let mut mounts = container.mounts.iter().filter(|mount| mount.read_only != Some(true));
            mounts.any(|mount| covers(&mount.mount_path, place))
        };
        let missing: Vec<&str> = places
            .iter()
            .filter(|names| !names.iter().any(|name| is_writable(&name)))
            .map(|names| names[0])
            .collect();
        if !missing.is_empty() {
            findings.push(Finding {
                message: format!(
                    "container {:?} has a read-only root, and its image {image} writes to {}",
                    container.name,
                    missing.join(", ")
                ),
                path: container.path(&["securityContext", "readOnlyRootFilesystem"]),
            });
        }
    }
    findings
}

/// `registry.example:5000/library/nginx:1.27@sha256:…` is `nginx`. Repackaged images (`bitnami/nginx`) are other images.
fn short_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let (path, name) = image.rsplit_once('/').unwrap_or(("", image));
    let name = name.split(':').next().unwrap_or_default();
    let owner = path.rsplit('/').next().unwrap_or_default();
    let is_registry = owner.contains(['.', ':']) || owner == "localhost";
    let own = ["", "library", "grafana", "prom", "nginxinc", "valkey"].contains(&owner) || is_registry;
    if own { name } else { "" }
}

/// Whether a mount at `mount` makes `place` writable.
fn covers(mount: &str, place: &str) -> bool {
    let mount = mount.trim_end_matches('/');
    place == mount || place.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'))
}
