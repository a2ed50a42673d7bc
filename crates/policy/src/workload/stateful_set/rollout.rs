//! How a new template comes to the pods: from the last to the first that `partition` leaves, so many at a time.

use k8s_openapi::api::apps::v1::RollingUpdateStatefulSetStrategy;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Look, is_going, make, name_of, revision_of};

impl<'a> Look<'a> {
    pub(super) fn is_on_delete(&self) -> bool {
        self.strategy() == Some("OnDelete")
    }

    fn strategy(&self) -> Option<&'a str> {
        self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref())
    }

    fn rolling(&self) -> Option<&'a RollingUpdateStatefulSetStrategy> {
        self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref())
    }

    /// Pods before this number keep the template they have.
    fn partition(&self) -> i64 {
        self.rolling().and_then(|rolling| rolling.partition).unwrap_or(0).into()
    }

    /// Whether a new pod of that number is of the template that was rolled out last, not of the present one.
    pub(super) fn is_of_old(&self, ordinal: i64) -> bool {
        if self.is_on_delete() {
            return false;
        }
        let kept = match self.rolling() {
            Some(_) => self.partition(),
            // Without parameters: so many as are still of it.
            None => {
                let status = self.set.status.as_ref();
                status.and_then(|status| status.current_replicas).unwrap_or(0).into()
            }
        };
        ordinal < make::start(self.spec) + kept
    }

    /// How many pods may be missing at a time; percentages are of `replicas`, rounded down, but one at the least.
    fn most_unavailable(&self) -> i64 {
        let wanted = self.wanted.end - self.wanted.start;
        let most = match self.rolling().and_then(|rolling| rolling.max_unavailable.as_ref()) {
            None => 1,
            Some(IntOrString::Int(pods)) => i64::from(*pods),
            Some(IntOrString::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                percent.saturating_mul(wanted) / 100
            }
        };
        most.max(1)
    }

    pub(super) fn roll(&mut self) {
        if self.is_on_delete() {
            return;
        }
        let replicas = self.pods.range(self.wanted.clone());
        let serving = replicas.filter(|(_, pod)| self.stays_available(pod)).count() as i64;
        let mut may_go = self.most_unavailable() - (self.wanted.end - self.wanted.start - serving);
        let open = self.pods.range(self.wanted.start + self.partition()..).rev();
        let old: Vec<&'a Pod> = open
            .filter(|(ordinal, pod)| self.wanted.contains(ordinal) && !is_going(pod))
            .map(|(_, pod)| *pod)
            .filter(|pod| revision_of(pod) != self.update.name)
            .collect();
        if !self.is_ordered() {
            // Those that do not serve as they are cost nothing, and would never serve.
            let broken = old.iter().filter(|pod| !self.is_available(pod)).map(|pod| name_of(pod));
            let broken: Vec<String> = broken.filter(|name| !self.plan.finished.contains(name)).collect();
            self.plan.delete.extend(broken);
        }
        for pod in old {
            if may_go <= 0 {
                return;
            }
            if self.is_available(pod) {
                self.plan.delete.push(name_of(pod));
                may_go -= 1;
            }
        }
    }
}
