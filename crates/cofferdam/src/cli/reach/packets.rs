//! A packet from the pod for an edge of the network, as `cofferdam why --live` sends it.

use k8s_openapi::api::core::v1::Pod;
use policy::network_policy::explain::{Name, PortWord, explain};
use policy::reach::{Claim, Sight};

use crate::cli::netpol::objects::Objects;
use crate::cli::why::live;
use crate::cluster::layout::Layout;

/// # Errors
/// Why nothing can be said.
pub async fn look(
    layout: &Layout,
    objects: &Objects,
    pod: &Pod,
    claim: &Claim,
    to: &str,
    port: &str,
) -> Result<Sight, String> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let source = Name::Pod { namespace: text(&pod.metadata.namespace), name: text(&pod.metadata.name) };
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let to = Name::parse(to, "default").map_err(|error| said(&error))?;
    let port = PortWord::parse(port).map_err(|error| said(&error))?;
    let answer = explain(&objects.world(), &source, &to, Some(&port)).map_err(|error| said(&error))?;
    let seen = live::probe(layout, &answer).await.map_err(|error| format!("{error:#}"))?;
    let one = seen.into_iter().next().ok_or("there is nothing to send a packet to")?;
    let witness = format!("{}: {}, {}", one.packet, one.kernel.word(), one.because);
    match one.agrees {
        Some(agrees) => Ok(Sight { is_there: claim.open == agrees, witness }),
        None => Err(witness),
    }
}
