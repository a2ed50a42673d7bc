//! Volumes are of the kinds that reach nothing outside the cluster's own storage.
//!
//! Restricted fields:
//! - `spec.volumes[*]`: configMap, csi, downwardAPI, emptyDir, ephemeral, image, persistentVolumeClaim, projected, secret.
//!   (`image` came later than the others, but for every version at once.)

use k8s_openapi::api::core::v1::Volume;

use super::host_path_volumes;
use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision, plural, quoted},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "restrictedVolumes",
    about: "A volume is of a kind that reaches outside the cluster's own storage.",
    level: Level::Restricted,
    versions: &[Revision::since(0, v1_0).replacing(&[host_path_volumes::ID])],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    let mut names = Vec::new();
    for (at, volume) in pod.volumes().iter().enumerate() {
        let Some(kind) = restricted_kind(volume) else { continue };
        let path = FieldPath::new(&["spec", "volumes"]).index(at);
        let (path, instead) = match kind {
            // A volume of no kind we know.
            None => (path, "give the volume a kind that the level allows"),
            Some("hostPath") => (path.fields(&["hostPath"]), host_path_volumes::INSTEAD),
            Some(kind) => (path.fields(&[kind]), "claim it by a persistentVolumeClaim"),
        };
        found.field(path, Change::ByHand, Some(instead));
        found.value(kind.unwrap_or("unknown"));
        names.push(&volume.name);
    }
    found.violation("restricted volume types", |found| {
        format!(
            "{} {} {} {} {}",
            plural(names.len(), "volume", "volumes"),
            quoted(&names),
            plural(names.len(), "uses", "use"),
            plural(found.values.len(), "restricted volume type", "restricted volume types"),
            found.quoted_values()
        )
    })
}

/// The field of a volume's kind that is not allowed; `Some(None)` for a volume of no known kind.
#[allow(clippy::option_option)]
fn restricted_kind(volume: &Volume) -> Option<Option<&'static str>> {
    let v = volume;
    let allowed = v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.image.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some();
    if allowed {
        return None;
    }
    let kinds = [
        (v.host_path.is_some(), "hostPath"),
        (v.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (v.git_repo.is_some(), "gitRepo"),
        (v.nfs.is_some(), "nfs"),
        (v.iscsi.is_some(), "iscsi"),
        (v.glusterfs.is_some(), "glusterfs"),
        (v.rbd.is_some(), "rbd"),
        (v.flex_volume.is_some(), "flexVolume"),
        (v.cinder.is_some(), "cinder"),
        (v.cephfs.is_some(), "cephfs"),
        (v.flocker.is_some(), "flocker"),
        (v.fc.is_some(), "fc"),
        (v.azure_file.is_some(), "azureFile"),
        (v.vsphere_volume.is_some(), "vsphereVolume"),
        (v.quobyte.is_some(), "quobyte"),
        (v.azure_disk.is_some(), "azureDisk"),
        (v.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (v.portworx_volume.is_some(), "portworxVolume"),
        (v.scale_io.is_some(), "scaleIO"),
        (v.storageos.is_some(), "storageos"),
    ];
    Some(kinds.into_iter().find(|(there, _)| *there).map(|(_, kind)| kind))
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "restricted volume types";
        vec![
            Case::pod("no volume", .., json!({ "spec": {} })),
            Case::pod(
                "every allowed kind",
                ..,
                json!({ "spec": { "volumes": [
                    { "name": "a", "configMap": {} }, { "name": "b", "csi": { "driver": "d" } }, { "name": "c", "downwardAPI": {} },
                    { "name": "d", "emptyDir": {} }, { "name": "e", "ephemeral": {} }, { "name": "f", "image": { "reference": "x" } },
                    { "name": "g", "persistentVolumeClaim": { "claimName": "x" } }, { "name": "h", "projected": {} }, { "name": "i", "secret": {} },
                ] } }),
            ),
            Case::pod("a directory of the node", .., json!({ "spec": { "volumes": [{ "name": "a", "hostPath": { "path": "/" } }] } }))
                .refused(REASON, r#"volume "a" uses restricted volume type "hostPath""#, &["spec.volumes[0].hostPath"]),
            Case::pod("none", .., json!({ "spec": { "volumes": [{ "name": "a" }] } })).refused(
                REASON,
                r#"volume "a" uses restricted volume type "unknown""#,
                &["spec.volumes[0]"],
            ),
            Case::pod(
                "every other kind",
                ..,
                json!({ "spec": { "volumes": [
                    { "name": "b", "gcePersistentDisk": { "pdName": "x" } }, { "name": "c", "awsElasticBlockStore": { "volumeID": "x" } },
                    { "name": "d", "gitRepo": { "repository": "x" } }, { "name": "e", "nfs": { "path": "/", "server": "x" } },
                    { "name": "f", "iscsi": { "iqn": "x", "lun": 0, "targetPortal": "x" } }, { "name": "g", "glusterfs": { "endpoints": "x", "path": "x" } },
                    { "name": "h", "rbd": { "image": "x", "monitors": [] } }, { "name": "i", "flexVolume": { "driver": "x" } },
                    { "name": "j", "cinder": { "volumeID": "x" } }, { "name": "k", "cephfs": { "monitors": [] } }, { "name": "l", "flocker": {} },
                    { "name": "m", "fc": {} }, { "name": "n", "azureFile": { "secretName": "x", "shareName": "x" } },
                    { "name": "o", "vsphereVolume": { "volumePath": "x" } }, { "name": "p", "quobyte": { "registry": "x", "volume": "x" } },
                    { "name": "q", "azureDisk": { "diskName": "x", "diskURI": "x" } }, { "name": "r", "photonPersistentDisk": { "pdID": "x" } },
                    { "name": "s", "portworxVolume": { "volumeID": "x" } },
                    { "name": "t", "scaleIO": { "gateway": "x", "secretRef": {}, "system": "x" } }, { "name": "u", "storageos": {} },
                ] } }),
            )
            .refused(
                REASON,
                r#"volumes "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u" use restricted volume types "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "iscsi", "nfs", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume""#,
                &[
                    "spec.volumes[0].gcePersistentDisk",
                    "spec.volumes[1].awsElasticBlockStore",
                    "spec.volumes[2].gitRepo",
                    "spec.volumes[3].nfs",
                    "spec.volumes[4].iscsi",
                    "spec.volumes[5].glusterfs",
                    "spec.volumes[6].rbd",
                    "spec.volumes[7].flexVolume",
                    "spec.volumes[8].cinder",
                    "spec.volumes[9].cephfs",
                    "spec.volumes[10].flocker",
                    "spec.volumes[11].fc",
                    "spec.volumes[12].azureFile",
                    "spec.volumes[13].vsphereVolume",
                    "spec.volumes[14].quobyte",
                    "spec.volumes[15].azureDisk",
                    "spec.volumes[16].photonPersistentDisk",
                    "spec.volumes[17].portworxVolume",
                    "spec.volumes[18].scaleIO",
                    "spec.volumes[19].storageos",
                ],
            ),
        ]
    }
}
