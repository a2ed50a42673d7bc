//! Who a pod's processes are and what they may do: rows B of the feature table.

use anyhow::Result;

use super::{
    Rows,
    cluster::{Demo, Seen},
    observe::{namespace, status},
};

const DEFAULT: &str = include_str!("../../../../examples/chapter/05-default-security.yaml");
const SECURE: &str = include_str!("../../../../examples/chapter/06-secure-pod.yaml");
const PRIVILEGED: &str = include_str!("../../../../examples/chapter/07-privileged-pod.yaml");
const CAPABILITIES: &str = include_str!("../../../../examples/chapter/08-capabilities.yaml");
const SHARED_VOLUME: &str = include_str!("../../../../examples/chapter/09-shared-volume.yaml");
const SUPPLEMENTAL: &str = include_str!("../../../../examples/chapter/10-supplemental-groups.yaml");
const FS_GROUP: &str = include_str!("../../../../examples/chapter/11-fsgroup.yaml");

/// The machine's own bounding set: nobody in it can have more.
fn bounding() -> Result<u64> {
    let own = status(i32::try_from(std::process::id())?)?;
    Ok(u64::from_str_radix(&own["CapBnd"], 16)?)
}

fn field(status: &std::collections::BTreeMap<String, String>, name: &str) -> String {
    status.get(name).cloned().unwrap_or_default()
}

fn tool<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut command = vec!["/bin/tool"];
    command.extend(arguments);
    command
}

pub async fn rows(demo: &Demo, rows: &mut Rows) -> Result<()> {
    for manifest in [DEFAULT, SECURE, PRIVILEGED, CAPABILITIES, SHARED_VOLUME, SUPPLEMENTAL, FS_GROUP] {
        demo.apply(manifest).await?;
    }
    let default = demo.running("default", "default-example").await?;
    own_namespaces(demo, &default, rows)?;
    default_ids(&default, rows)?;
    let secure = demo.running("default", "secure-pod").await?;
    hardened(demo, &secure, rows).await?;
    non_root(demo, rows).await?;
    privileged(demo, rows).await?;
    capabilities(demo, &default, rows).await?;
    groups(demo, rows).await
}

fn own_namespaces(demo: &Demo, pod: &Seen, rows: &mut Rows) -> Result<()> {
    let node = demo.node_init(&pod.node)?;
    let kinds = ["net", "pid", "ipc", "uts", "mnt", "cgroup"];
    let mut own = Vec::new();
    for kind in kinds {
        if namespace(pod.pid, kind)? != namespace(node, kind)? {
            own.push(kind);
        }
    }
    rows.add(
        "A1",
        "05-default-security",
        "namespaces of its own",
        format!("own {}", own.join(" ")),
        own == kinds,
    );
    Ok(())
}

fn default_ids(pod: &Seen, rows: &mut Rows) -> Result<()> {
    let status = status(pod.pid)?;
    let (uid, gid, caps) = (field(&status, "Uid"), field(&status, "Gid"), field(&status, "CapEff"));
    let first = |ids: &str| ids.split(' ').next().unwrap_or_default().to_owned();
    // containerd's fourteen, as a mask.
    let agrees = first(&uid) == "0" && first(&gid) == "0" && caps == "00000000a80425fb";
    let seen = format!("uid {} gid {} CapEff {}", first(&uid), first(&gid), caps.trim_start_matches('0'));
    rows.add("B1", "05-default-security", "nothing: root with the 14 default capabilities", seen, agrees);
    Ok(())
}

async fn hardened(demo: &Demo, pod: &Seen, rows: &mut Rows) -> Result<()> {
    let manifest = "06-secure-pod";
    let status = status(pod.pid)?;
    let (uid, gid) = (field(&status, "Uid"), field(&status, "Gid"));
    rows.add(
        "B2",
        manifest,
        "runAsUser 405, runAsGroup 100",
        format!("Uid {uid}; Gid {gid}"),
        uid == "405 405 405 405" && gid == "100 100 100 100",
    );
    let nnp = field(&status, "NoNewPrivs");
    rows.add("B5", manifest, "allowPrivilegeEscalation false", format!("NoNewPrivs {nnp}"), nnp == "1");
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| field(&status, set));
    let empty = sets.iter().all(|set| set == "0000000000000000");
    rows.add(
        "B7",
        manifest,
        "capabilities drop ALL",
        if empty { "all five sets empty".to_owned() } else { sets.join(" ") },
        empty,
    );
    let (code, output) = demo.exec(pod, "secure-container", &tool(&["write", "/probe", "x"])).await?;
    let denied = code != 0 && output.contains("Read-only file system");
    rows.add("B6", manifest, "readOnlyRootFilesystem", format!("write to /: {}", last(&output)), denied);
    Ok(())
}

async fn non_root(demo: &Demo, rows: &mut Rows) -> Result<()> {
    demo.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: non-root}, spec: {securityContext: {runAsNonRoot: true}, \
         containers: [{name: main, image: nginx}]}}",
    )
    .await?;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.clone());
        waiting.into_iter().find(|one| one.reason.as_deref() == Some("CreateContainerConfigError"))
    };
    let pod = demo.until("default", "non-root", |pod| waits(pod).is_some()).await?;
    let message = waits(&pod).and_then(|one| one.message).unwrap_or_default();
    let agrees = message.starts_with("container has runAsNonRoot and image will run as root");
    rows.add(
        "B3",
        "",
        "runAsNonRoot, an image of root",
        format!("never starts: {}", message.split(" (pod").next().unwrap_or_default()),
        agrees,
    );
    demo.delete("default", "non-root").await
}

async fn privileged(demo: &Demo, rows: &mut Rows) -> Result<()> {
    let pod = demo.running("default", "privileged-pod").await?;
    let status = status(pod.pid)?;
    let caps = u64::from_str_radix(&field(&status, "CapEff"), 16)?;
    let seccomp = field(&status, "Seccomp");
    let root = format!("/proc/{}/root", pod.pid);
    let devices = std::fs::read_dir(format!("{root}/dev"))?.count();
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", pod.pid))?;
    let sys = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/sys")).unwrap_or_default();
    let writable =
        sys.split(' ').nth(3).is_some_and(|options| options.split(',').any(|option| option == "rw"));
    let agrees = caps == bounding()? && seccomp == "0" && writable && devices > 20;
    let seen = format!(
        "{} capabilities, {devices} devices, seccomp {seccomp}, /sys {}",
        caps.count_ones(),
        if writable { "rw" } else { "ro" }
    );
    rows.add("B4", "07-privileged-pod", "privileged", seen, agrees);
    Ok(())
}

async fn capabilities(demo: &Demo, default: &Seen, rows: &mut Rows) -> Result<()> {
    let manifest = "08-capabilities";
    let pod = demo.running("default", "cap-example").await?;
    let status = status(pod.pid)?;
    let sets = ["CapPrm", "CapEff", "CapBnd"].map(|set| field(&status, set));
    let exact =
        sets.iter().all(|set| set == "0000000000003000") && field(&status, "CapAmb") == "0000000000000000";
    rows.add(
        "B7",
        manifest,
        "drop ALL, add NET_ADMIN NET_RAW",
        format!("CapEff {}", sets[1].trim_start_matches('0')),
        exact,
    );
    let (with, said) = demo.exec(&pod, "my-container", &tool(&["mklink", "probe0"])).await?;
    let (without, refused) = demo.exec(default, "main", &tool(&["mklink", "probe0"])).await?;
    let agrees = with == 0 && without != 0 && refused.contains("Operation not permitted");
    let seen = format!("with: {}; without: {}", if with == 0 { "made" } else { last(&said) }, last(&refused));
    rows.add("B7", manifest, "NET_ADMIN makes a link", seen, agrees);
    Ok(())
}

async fn groups(demo: &Demo, rows: &mut Rows) -> Result<()> {
    let shared = demo.running("default", "shared-volume-example").await?;
    let (_, owner) = demo.exec(&shared, "first", &tool(&["stat", "/volume"])).await?;
    let first = field(&status(shared.pid)?, "Groups");
    let (wrote, said) = demo.exec(&shared, "first", &tool(&["write", "/volume/file", "from-first"])).await?;
    // As in every system: the writer's umask keeps its group from writing until it says otherwise.
    demo.exec(&shared, "first", &tool(&["chmod", "664", "/volume/file"])).await?;
    let (appended, refused) =
        demo.exec(&shared, "second", &tool(&["write", "/volume/file", "from-second"])).await?;
    let (read, text) = demo.exec(&shared, "first", &tool(&["read", "/volume/file"])).await?;
    let agrees = wrote == 0 && appended == 0 && read == 0 && text == "from-second";
    let seen =
        if agrees { "each writes the other's file".to_owned() } else { format!("{said} {refused} {text}") };
    rows.add("B12", "09-shared-volume", "two users share a volume by fsGroup 555", seen, agrees);
    let has =
        |groups: &str, wanted: &[&str]| wanted.iter().all(|group| groups.split(' ').any(|one| one == *group));
    rows.add(
        "B10",
        "09-shared-volume",
        "fsGroup 555, supplementalGroups 666 777",
        format!("Groups {first}; volume {owner}"),
        has(&first, &["555", "666", "777"]) && owner.contains("gid 555") && owner.contains("mode 2777"),
    );
    let supplemental = demo.running("default", "supplemental-groups-pod").await?;
    let groups = field(&status(supplemental.pid)?, "Groups");
    let (_, owner) = demo.exec(&supplemental, "app", &tool(&["stat", "/data"])).await?;
    let agrees = has(&groups, &["2000", "3000"]) && owner.contains("gid 0");
    rows.add(
        "B11",
        "10-supplemental-groups",
        "groups for the process alone",
        format!("Groups {groups}; volume {owner}"),
        agrees,
    );
    let pod = demo.running("default", "fsgroup-example").await?;
    let (code, said) = demo.exec(&pod, "my-container", &tool(&["write", "/data/file", "x"])).await?;
    let (_, owner) = demo.exec(&pod, "my-container", &tool(&["stat", "/data/file"])).await?;
    let agrees = code == 0 && owner.contains("uid 1000") && owner.contains("gid 2000");
    let seen = if code == 0 { format!("its file: {owner}") } else { said };
    rows.add("B10", "11-fsgroup", "fsGroup 2000 for uid 1000", seen, agrees);
    Ok(())
}

/// The last part of a message after a colon: the errno's words.
fn last(message: &str) -> &str {
    let last = message.lines().last().unwrap_or_default().rsplit(": ").next().unwrap_or_default();
    last.split(" (os error").next().unwrap_or_default()
}
