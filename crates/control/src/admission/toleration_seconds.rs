//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable, unless it says
//! otherwise.

use api::ApiError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

pub struct DefaultTolerationSeconds;

const SECONDS: u32 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

impl Plugin for DefaultTolerationSeconds {
    fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        let writes = request.is(Operation::Create, "pods") || request.is(Operation::Update, "pods");
        if !writes {
            return Ok(());
        }
        // Not by index: that would write a null into what has no spec.
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
        if tolerations.is_null() {
            *tolerations = json!([]);
        }
        let Some(tolerations) = tolerations.as_array_mut() else { return Ok(()) };
        for taint in TAINTS {
            let tolerated = tolerations.iter().any(|t| {
                let text = |name: &str| t[name].as_str().unwrap_or_default();
                (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": taint,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": SECONDS,
                }));
            }
        }
        Ok(())
    }
}
