//! Volumes: one source each, with what the source needs, and paths that stay inside.

use super::view::At;
use super::{container, metadata, names, quantity::Quantity};
use crate::field::{Error, ErrorList};

/// The sources of a volume, in upstream's order, each with the fields it cannot do without.
const SOURCES: [(&str, &[&str]); 30] = [
    ("emptyDir", &[]),
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["registry", "volume"]),
    ("downwardAPI", &[]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("projected", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &["driver"]),
    ("ephemeral", &["volumeClaimTemplate"]),
    ("image", &["reference"]),
];

/// The fields of the pod that a downward API file may hold.
const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const MODE_ERROR: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The volumes that are well-formed: what mounts may name.
pub(super) struct Volumes<'a>(Vec<(&'a str, At<'a>)>);

impl<'a> Volumes<'a> {
    pub fn get(&self, name: &str) -> Option<&At<'a>> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, volume)| volume)
    }
}

/// `pod` is the pod's name, "" where it is not known.
pub(super) fn volumes<'a>(errors: &mut ErrorList, list: &At<'a>, pod: &str) -> Volumes<'a> {
    let mut good = Volumes(Vec::new());
    for volume in list.items() {
        let name = volume.child("name");
        let mut wrong = ErrorList::new();
        source(&mut wrong, &volume, pod);
        if name.str().is_empty() {
            wrong.push(name.required(""));
        } else {
            name.invalid_each(&mut wrong, names::dns_label(name.str()));
        }
        if good.get(name.str()).is_some() {
            wrong.push(Error::duplicate(&name.path, name.str()));
        }
        if wrong.is_empty() {
            good.0.push((name.str(), volume));
        } else {
            errors.append(wrong);
        }
    }
    good
}

fn source(errors: &mut ErrorList, volume: &At<'_>, pod: &str) {
    let mut count = 0;
    for (kind, required) in SOURCES {
        let at = volume.child(kind);
        if !at.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            errors.push(at.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        for field in required {
            if at.child(field).is_empty() {
                errors.push(at.child(field).required(""));
            }
        }
        match kind {
            "emptyDir" => empty_dir(errors, &at),
            "hostPath" => host_path(errors, &at),
            "secret" | "configMap" => keys_volume(errors, &at),
            "downwardAPI" => {
                mode(errors, &at.child("defaultMode"));
                for file in at.child("items").items() {
                    downward_file(errors, &file, &at);
                }
            }
            "projected" => projected(errors, &at),
            "gitRepo" => descending_path(errors, &at.child("directory")),
            "nfs" => {
                let path = at.child("path");
                if !path.str().is_empty() && !path.str().starts_with('/') {
                    errors.push(path.invalid("must be an absolute path"));
                }
            }
            "ephemeral" => ephemeral(errors, volume, &at, pod),
            "image" => at.child("pullPolicy").one_of(errors, &["Always", "IfNotPresent", "Never"]),
            _ => {}
        }
    }
    if count == 0 {
        errors.push(volume.required("must specify a volume type"));
    }
}

fn empty_dir(errors: &mut ErrorList, at: &At<'_>) {
    let limit = at.child("sizeLimit");
    match Quantity::parse(limit.str()) {
        Ok(quantity) if quantity.is_negative() => {
            errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
        }
        Err(message) if limit.is_string() => errors.push(limit.invalid(message)),
        _ => {}
    }
    // Upstream takes any medium here and fails on the node; a medium that nobody has is named at once.
    let medium = at.child("medium");
    if !matches!(medium.str(), "" | "Memory" | "HugePages") && !medium.str().starts_with("HugePages-") {
        errors.push(Error::not_supported(&medium.path, medium.str(), &["", "HugePages", "Memory"]));
    }
}

fn host_path(errors: &mut ErrorList, at: &At<'_>) {
    if at.child("path").str().is_empty() {
        return;
    }
    no_backsteps(errors, &at.child("path"));
    at.child("type").one_of_set(
        errors,
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

/// A secret or configMap volume.
fn keys_volume(errors: &mut ErrorList, at: &At<'_>) {
    mode(errors, &at.child("defaultMode"));
    for item in at.child("items").items() {
        key_to_path(errors, &item);
    }
}

fn key_to_path(errors: &mut ErrorList, item: &At<'_>) {
    for field in ["key", "path"] {
        if item.child(field).str().is_empty() {
            errors.push(item.child(field).required(""));
        }
    }
    non_reserved_path(errors, &item.child("path"));
    mode(errors, &item.child("mode"));
}

fn mode(errors: &mut ErrorList, mode: &At<'_>) {
    if mode.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        errors.push(mode.invalid(MODE_ERROR));
    }
}

/// Upstream reports on the source, not on the item.
fn downward_file(errors: &mut ErrorList, file: &At<'_>, source: &At<'_>) {
    let at = |field: &str| file.child(field).with_path(source.path.child(field));
    let path = at("path");
    if path.str().is_empty() {
        errors.push(path.required(""));
    }
    non_reserved_path(errors, &path);
    let (field, resource) = (at("fieldRef"), at("resourceFieldRef"));
    if field.is_set() {
        container::field_ref(errors, &field, &DOWNWARD_FIELDS);
        if resource.is_set() {
            errors.push(Error::invalid(
                &source.path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ));
        }
    } else if resource.is_set() {
        container::resource_ref(errors, &resource, true);
    } else {
        errors.push(source.required("one of fieldRef and resourceFieldRef is required"));
    }
    mode(errors, &at("mode"));
}

fn projected(errors: &mut ErrorList, at: &At<'_>) {
    mode(errors, &at.child("defaultMode"));
    let mut paths: Vec<String> = Vec::new();
    for source in at.child("sources").items() {
        let mut count = 0;
        let mut claim = |errors: &mut ErrorList, path: &str, culprit: &str| {
            if path.is_empty() {
                return;
            }
            if paths.iter().any(|p| p == path) {
                errors.push(Error::invalid(&at.path, culprit, "conflicting duplicate paths"));
            } else {
                paths.push(path.to_owned());
            }
        };
        for kind in ["secret", "configMap"] {
            let keys = source.child(kind);
            if !keys.is_set() {
                continue;
            }
            count += 1;
            if keys.child("name").str().is_empty() {
                errors.push(keys.child("name").required(""));
            }
            for item in keys.child("items").items() {
                key_to_path(errors, &item);
                claim(errors, item.child("path").str(), keys.child("name").str());
            }
        }
        let downward = source.child("downwardAPI");
        if downward.is_set() {
            count += 1;
            for file in downward.child("items").items() {
                downward_file(errors, &file, &downward);
                claim(errors, file.child("path").str(), file.child("path").str());
            }
        }
        let token = source.child("serviceAccountToken");
        if token.is_set() {
            count += 1;
            let seconds = token.child("expirationSeconds");
            if seconds.int().unwrap_or(0) < 600 {
                errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
            }
            if seconds.int().unwrap_or(0) > 1 << 32 {
                errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
            }
            let path = token.child("path").with_path(at.path.child("path"));
            if path.str().is_empty() {
                errors.push(path.required(""));
            } else {
                non_reserved_path(errors, &path);
            }
        }
        let bundle = source.child("clusterTrustBundle");
        if bundle.is_set() {
            count += 1;
            match (bundle.child("name").is_set(), bundle.child("signerName").is_set()) {
                (true, true) => errors.push(bundle.invalid("only one of name and signerName may be used")),
                (false, false) => errors.push(bundle.required("either name or signerName must be specified")),
                _ => {}
            }
            let path = bundle.child("path");
            if path.str().is_empty() {
                errors.push(path.required(""));
            }
            non_reserved_path(errors, &path);
            claim(errors, path.str(), path.str());
        }
        if count > 1 {
            errors.push(source.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn ephemeral(errors: &mut ErrorList, volume: &At<'_>, at: &At<'_>, pod: &str) {
    let template = at.child("volumeClaimTemplate");
    metadata::labels(errors, &template.child("metadata").child("labels"));
    let name = volume.child("name");
    if !pod.is_empty() && !name.str().is_empty() {
        let claim = format!("{pod}-{}", name.str());
        for message in names::dns_subdomain(&claim) {
            errors.push(name.invalid(format!("PVC name {}: {message}", crate::field::quote(&claim))));
        }
    }
}

fn no_backsteps(errors: &mut ErrorList, path: &At<'_>) {
    if path.str().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// Relative and without `..`: subPath (CVE-2017-1002101), localhost profiles.
pub(super) fn descending_path(errors: &mut ErrorList, path: &At<'_>) {
    if path.str().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_backsteps(errors, path);
}

/// Also not beginning with `..`: those names are the atomic writer's own.
fn non_reserved_path(errors: &mut ErrorList, path: &At<'_>) {
    descending_path(errors, path);
    if path.str().starts_with("..") && !path.str().starts_with("../") && path.str() != ".." {
        errors.push(path.invalid("must not start with '..'"));
    }
}
