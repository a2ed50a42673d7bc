//! What of a Service's spec the nodes cannot keep to is said to whoever writes it. It stays closed, not open: see
//! `node::net::services`.

use api::ApiError;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct ServiceSources;

const WARNING: &str = "spec.loadBalancerSourceRanges: nodes of this cluster do not filter by source; they let nobody in at the \
                       addresses of load balancers in status.loadBalancer (node ports and cluster IPs answer as ever)";

impl Plugin for ServiceSources {
    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let writes = request.is(Operation::Create, "services") || request.is(Operation::Update, "services");
        let ranges = object
            .filter(|_| writes)
            .and_then(|object| object["spec"]["loadBalancerSourceRanges"].as_array());
        if ranges.is_some_and(|ranges| !ranges.is_empty()) {
            warnings.push(WARNING.to_owned());
        }
        Ok(())
    }
}
