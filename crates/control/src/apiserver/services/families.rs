//! Which families a Service has: what it says, what it said before and what the cluster has, decided in upstream's order
//! (`normalizeClusterIPs` and `initIPFamilyFields` of `pkg/registry/core/service/storage`).

use api::{
    field::{Error, ErrorList, Path},
    validation,
};
use policy::network_policy::ir::Family;
use serde_json::{Value, json};

use super::super::text;

pub(super) const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// The linked fields of a Service's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// `clusterIP`: empty where it is not given.
    pub ip: String,
    /// `clusterIPs`
    pub ips: Vec<String>,
    /// `ipFamilies`
    pub families: Vec<String>,
    /// `ipFamilyPolicy`
    pub policy: Option<String>,
}

impl Fields {
    pub fn of(service: &Value) -> Fields {
        let strings = |field: &str| {
            let list = service["spec"][field].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Fields {
            ip: text(service, "/spec/clusterIP").to_owned(),
            ips: strings("clusterIPs"),
            families: strings("ipFamilies"),
            policy: service["spec"]["ipFamilyPolicy"].as_str().map(str::to_owned),
        }
    }

    pub fn write(&self, service: &mut Value) {
        let Some(spec) = service["spec"].as_object_mut() else { return };
        let list = |strings: &[String]| if strings.is_empty() { Value::Null } else { json!(strings) };
        let ip = if self.ip.is_empty() { Value::Null } else { self.ip.as_str().into() };
        let fields = [
            ("clusterIP", ip),
            ("clusterIPs", list(&self.ips)),
            ("ipFamilies", list(&self.families)),
            ("ipFamilyPolicy", self.policy.clone().map_or(Value::Null, Value::from)),
        ];
        for (field, value) in fields {
            if value.is_null() {
                spec.remove(field);
            } else {
                spec.insert(field.to_owned(), value);
            }
        }
    }

    pub fn is_headless(&self) -> bool {
        self.ip == "None"
    }

    fn is_single(&self) -> bool {
        self.policy.as_deref() == Some(SINGLE)
    }
}

pub(super) fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn other(family: &str) -> String {
    if family == "IPv4" { "IPv6" } else { "IPv4" }.to_owned()
}

/// `clusterIP` and `clusterIPs` are one thing said twice: clients that know only the first change only that.
pub(super) fn normalize(new: &mut Fields, old: Option<&Fields>) {
    let Some(old) = old else {
        if !new.ip.is_empty() && new.ips.is_empty() {
            new.ips = vec![new.ip.clone()];
        }
        return;
    };
    if new.ip != old.ip && new.ips == old.ips {
        new.ips = if new.ip.is_empty() { Vec::new() } else { vec![new.ip.clone()] };
    }
}

/// Gives a Service the policy and the families it did not name. `families`: the cluster's, those of Services that name
/// none first.
///
/// # Errors
/// What cannot be on this cluster, or was changed without saying so in the policy.
pub(super) fn settle(service: &mut Value, old: Option<&Value>, families: &[Family]) -> Result<(), ErrorList> {
    if text(service, "/spec/type") == "ExternalName" {
        return Ok(());
    }
    let had = old.map(Fields::of);
    let mut new = Fields::of(service);
    if old.is_some_and(|old| text(old, "/spec/type") == text(service, "/spec/type"))
        && had.as_ref().is_some_and(|had| stays_as_preferred(&new, had))
    {
        return Ok(());
    }
    let without_selector = service["spec"]["selector"].as_object().is_none_or(|selector| selector.is_empty());
    let open = new.is_headless() && without_selector;
    if new.policy.is_none() {
        // Never from one family to two, or back, but by a policy that says so.
        new.policy = match had.as_ref().and_then(|had| had.policy.clone()) {
            Some(policy) => Some(policy),
            None if open => Some(REQUIRE.to_owned()),
            None => Some(SINGLE.to_owned()),
        };
    }
    new.write(service);
    let malformed = validation::service_addresses(service);
    if !malformed.is_empty() {
        return Err(malformed);
    }

    let mut errors = ErrorList::new();
    if let Some(had) = &had {
        follow_reduction(&mut new, had, &mut errors);
    }
    let policy_path = Path::new("spec").child("ipFamilyPolicy");
    let wrong = |new: &Fields, why: &str| Error::invalid(&policy_path, json!(new.policy), why);
    if new.is_single() {
        for (count, what) in [(new.ips.len(), "cluster IPs"), (new.families.len(), "IP families")] {
            if count == 2 {
                let why = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                errors.push(wrong(&new, &why));
            }
        }
    }
    let configured = |family: &str| families.iter().any(|one| name(*one) == family);
    for (at, ip) in new.ips.iter().enumerate().filter(|(_, ip)| *ip != "None") {
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        if at < new.families.len() {
            continue;
        }
        if configured(family) {
            new.families.push(family.to_owned());
        } else {
            let path = Path::new("spec").child("clusterIPs").index(at);
            errors.push(Error::invalid(
                &path,
                json!(new.ips),
                format!("{family} is not configured on this cluster"),
            ));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }

    let default = families.first().map_or("IPv4", |family| name(*family));
    // The endpoints are somebody else's, who may have them in families that the cluster does not have.
    if !open {
        if new.policy.as_deref() == Some(REQUIRE) && families.len() < 2 {
            errors.push(wrong(&new, "this cluster is not configured for dual-stack services"));
        }
        for (at, family) in new.families.iter().enumerate().filter(|(_, family)| !configured(family)) {
            let path = Path::new("spec").child("ipFamilies").index(at);
            errors.push(Error::invalid(&path, family.as_str(), "not configured on this cluster"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
    }
    if new.families.is_empty() {
        new.families.push(default.to_owned());
    }
    if !new.is_single()
        && (open || families.len() == 2)
        && let [only] = new.families.as_slice()
    {
        let second = other(only);
        new.families.push(second);
    }
    new.write(service);
    Ok(())
}

/// A Service that prefers two families keeps the one it got where there was no other.
fn stays_as_preferred(new: &Fields, had: &Fields) -> bool {
    let prefers = |policy: &Option<String>| policy.as_deref().is_none_or(|policy| policy == PREFER);
    new.policy.is_some()
        && prefers(&new.policy)
        && prefers(&had.policy)
        && new.ips == had.ips
        && new.families == had.families
}

/// The policy alone says that the second family goes; the fields that a client sent back as they were follow it.
fn follow_reduction(new: &mut Fields, had: &Fields, errors: &mut ErrorList) {
    if new.is_single() {
        if new.ips == had.ips {
            new.ips.truncate(1);
        }
        if new.families == had.families {
            new.families.truncate(1);
        }
        return;
    }
    let path = Path::new("spec").child("ipFamilyPolicy");
    let reduced = |new: &[String], had: &[String]| !new.is_empty() && new.len() < had.len();
    for (reduced, what) in
        [(reduced(&new.ips, &had.ips), "cluster IP"), (reduced(&new.families, &had.families), "IP family")]
    {
        if reduced {
            let why = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(Error::invalid(&path, json!(new.policy), why));
        }
    }
}
