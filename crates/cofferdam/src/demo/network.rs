//! Who may talk to whom: rows D of the feature table, by connections made from inside the pods' networks.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};

use super::{
    Rows,
    cluster::{Demo, Seen},
    observe::{Outcome, alive, connect, open},
};

const DEFAULT_DENY: &str = include_str!("../../../../examples/chapter/12-netpol-default-deny.yaml");
const DATABASE: &str = include_str!("../../../../examples/chapter/13-netpol-database.yaml");
const TENANT: &str = include_str!("../../../../examples/chapter/14-netpol-tenant.yaml");
const EGRESS: &str = include_str!("../../../../examples/chapter/15-netpol-egress.yaml");

/// A connection and what should become of it.
struct Flow<'a> {
    from: &'a Seen,
    to: &'a Seen,
    port: u16,
    passes: bool,
}

/// Makes each connection; what was not as it should be, if anything.
fn hold(flows: &[Flow<'_>]) -> Result<(String, bool)> {
    let mut wrong = Vec::new();
    let (mut passed, mut stopped) = (0, 0);
    for flow in flows {
        let outcome = connect(flow.from.pid, flow.to.ip, flow.port)?;
        passed += usize::from(outcome.passes());
        stopped += usize::from(!outcome.passes());
        // What a policy forbids is dropped: a refusal would mean that the packet arrived.
        let right = if flow.passes { outcome.passes() } else { outcome == Outcome::Dropped };
        if !right {
            wrong.push(format!("{} → {}:{} {}", name(flow.from), name(flow.to), flow.port, outcome.word()));
        }
    }
    match wrong.is_empty() {
        true => Ok((format!("{passed} connections pass, {stopped} are dropped, as asked"), true)),
        false => Ok((wrong.join(", "), false)),
    }
}

fn name(seen: &Seen) -> &str {
    seen.pod.metadata.name.as_deref().unwrap_or_default()
}

pub async fn rows(demo: &Demo, rows: &mut Rows) -> Result<()> {
    demo.namespace("foo", &[]).await?;
    demo.namespace("shop", &[]).await?;
    demo.namespace("customers", &[]).await?;
    demo.server("foo", "database", "app: database", "'5432', '80'").await?;
    demo.server("foo", "webserver", "app: webserver", "'80'").await?;
    demo.server("foo", "other", "app: other", "'80'").await?;
    demo.server("shop", "shopping-cart", "app: shopping-cart", "'80'").await?;
    demo.server("customers", "client", "app: client", "'80'").await?;
    let database = demo.running("foo", "database").await?;
    let webserver = demo.running("foo", "webserver").await?;
    let other = demo.running("foo", "other").await?;
    let cart = demo.running("shop", "shopping-cart").await?;
    let client = demo.running("customers", "client").await?;
    let flow = |from, to, port, passes| Flow { from, to, port, passes };

    let (seen, agrees) = hold(&[
        flow(&webserver, &database, 5432, true),
        flow(&other, &database, 80, true),
        flow(&client, &cart, 80, true),
        flow(&client, &webserver, 80, true),
    ])?;
    rows.add("D1", "", "no policy: pods reach each other across nodes", seen, agrees);

    // A connection that is open when its policy comes: the packet filter must stop it at commit.
    let established = open(other.pid, database.ip, 80)?;
    demo.apply(DEFAULT_DENY).await?;
    demo.apply(DATABASE).await?;
    settle(&other, &database).context("the policies are not enforced")?;
    let (seen, agrees) = hold(&[
        flow(&other, &webserver, 80, false),
        flow(&client, &webserver, 80, false),
        flow(&client, &cart, 80, true),
    ])?;
    rows.add("D2", "12-netpol-default-deny", "nothing into any pod of the namespace", seen, agrees);
    let node = demo.node_init(&webserver.node)?;
    let probe = connect(node, webserver.ip, 80)?;
    rows.add(
        "D2",
        "12-netpol-default-deny",
        "the node's probes still pass",
        format!("the node's connection {}", probe.word()),
        probe.passes(),
    );
    let (seen, agrees) = hold(&[
        flow(&webserver, &database, 5432, true),
        flow(&webserver, &database, 80, false),
        flow(&other, &database, 5432, false),
        flow(&client, &database, 5432, false),
    ])?;
    rows.add(
        "D3",
        "13-netpol-database",
        "webserver reaches the database on 5432, nobody else does",
        seen,
        agrees,
    );
    let alive = alive(established)?;
    rows.add(
        "D7",
        "12-netpol-default-deny",
        "open connections end at once",
        if alive { "it still carries data" } else { "the open flow carries nothing more" },
        !alive,
    );

    demo.apply(TENANT).await?;
    settle(&client, &cart).context("the policy is not enforced")?;
    label(demo, "customers", serde_json::json!("manning")).await?;
    let opened = wait_until(|| Ok(connect(client.pid, cart.ip, 80)?.passes()))?;
    let (mut seen, mut agrees) = hold(&[flow(&client, &cart, 80, true), flow(&other, &cart, 80, false)])?;
    label(demo, "customers", serde_json::Value::Null).await?;
    let closed = wait_until(|| Ok(!connect(client.pid, cart.ip, 80)?.passes()))?;
    agrees &= opened && closed;
    seen.push_str(if opened && closed {
        "; relabelling opens and closes"
    } else {
        "; relabelling does not take effect"
    });
    rows.add("D4", "14-netpol-tenant", "only namespaces with tenant=manning reach the cart", seen, agrees);

    demo.apply(EGRESS).await?;
    wait_until(|| Ok(!connect(webserver.pid, client.ip, 80)?.passes()))?;
    let (seen, agrees) = hold(&[
        flow(&webserver, &database, 5432, true),
        flow(&webserver, &client, 80, false),
        flow(&client, &client, 80, true),
    ])?;
    rows.add("D5", "15-netpol-egress", "the web server reaches the database and nothing else", seen, agrees);
    Ok(())
}

/// Waits until a connection that a new policy forbids is dropped: it is enforced by then.
fn settle(from: &Seen, to: &Seen) -> Result<()> {
    let enforced = wait_until(|| Ok(!connect(from.pid, to.ip, 80)?.passes()))?;
    anyhow::ensure!(enforced, "{} still reaches {}", name(from), name(to));
    Ok(())
}

/// Tries a few times: a policy is enforced milliseconds after the API server has taken it, and nothing tells us when.
fn wait_until(is_so: impl Fn() -> Result<bool>) -> Result<bool> {
    for _ in 0..100 {
        if is_so()? {
            return Ok(true);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(false)
}

async fn label(demo: &Demo, namespace: &str, tenant: serde_json::Value) -> Result<()> {
    let patch = serde_json::json!({ "metadata": { "labels": { "tenant": tenant } } });
    Api::<Namespace>::all(demo.client.clone())
        .patch(namespace, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("label namespace {namespace}"))?;
    Ok(())
}
