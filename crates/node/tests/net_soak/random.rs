//! Labels, selectors and policies at random.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

/// SplitMix64: a history must be the same for the same seed, everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
    pub fn labels(&mut self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for key in ["x", "y"] {
            if !self.one_in(3) {
                labels.insert(key.to_string(), self.below(2).to_string());
            }
        }
        labels
    }
    pub fn selector(&mut self) -> Value {
        let value = self.below(2).to_string();
        match self.below(4) {
            0 => json!({}),
            1 => json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": [value]}]}),
            2 => json!({"matchExpressions": [{"key": "y", "operator": "Exists"}]}),
            _ => json!({"matchLabels": {"x": value}}),
        }
    }
    pub fn rule(&mut self, peers: &str) -> Value {
        let mut rule = json!({});
        if !self.one_in(4) {
            let all = (0..=self.below(2)).map(|_| match self.below(5) {
                0 => json!({"namespaceSelector": self.selector()}),
                1 => json!({"namespaceSelector": self.selector(), "podSelector": self.selector()}),
                2 => json!({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/25"]}}),
                3 => json!({"ipBlock": {"cidr": "fd00:cf:244::/56", "except": ["fd00:cf:244:1::/125"]}}),
                _ => json!({"podSelector": self.selector()}),
            });
            rule[peers] = all.collect();
        }
        if self.one_in(2) {
            let protocol = *self.of(&["TCP", "UDP"]);
            rule["ports"] = match self.below(3) {
                0 => json!([{"protocol": protocol, "port": "web"}]),
                1 => json!([{"protocol": protocol, "port": 79, "endPort": 1000}]),
                _ => json!([{"protocol": protocol, "port": 5432}, {"protocol": "UDP"}]),
            };
        }
        rule
    }
    pub fn policy(&mut self, namespace: &str, name: &str) -> NetworkPolicy {
        let types = *self.of(&[["Ingress"].as_slice(), &["Egress"], &["Ingress", "Egress"]]);
        let mut spec = json!({"podSelector": self.selector(), "policyTypes": types});
        for (kind, field, peers) in [("Ingress", "ingress", "from"), ("Egress", "egress", "to")] {
            if types.contains(&kind) {
                spec[field] = (0..self.below(3)).map(|_| self.rule(peers)).collect();
            }
        }
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }
}
