//! Objects that appliers and writers change, and what is said of their fields.

use serde_json::{Value, json};

use super::*;
use crate::{error::ApiError, schema};

mod merging;
mod owners;
mod properties;
mod sets;

/// An object that appliers and writers change, with its managers.
pub(super) struct World {
    ty: &'static schema::Type,
    api_version: &'static str,
    object: Option<Value>,
    managed: Managed,
    clock: u32,
}

fn no_other_version(_: &Value, _: &str) -> Option<(&'static schema::Type, Value)> {
    None
}

impl World {
    pub fn new(api_version: &'static str, kind: &str) -> World {
        let ty = schema::by_kind(api_version, kind).unwrap();
        World { ty, api_version, object: None, managed: Managed::default(), clock: 0 }
    }

    fn scope(&self) -> Scope<'static> {
        Scope { ty: self.ty, reach: Reach::AllBut("status"), convert: &no_other_version }
    }

    fn now(&mut self) -> String {
        self.clock += 1;
        format!("2026-01-01T00:{:02}:{:02}Z", self.clock / 60, self.clock % 60)
    }

    pub fn apply(&mut self, manager: &str, config: Value) -> Result<(), ApiError> {
        self.apply_by(manager, config, false)
    }

    pub fn force(&mut self, manager: &str, config: Value) {
        self.apply_by(manager, config, true).unwrap();
    }

    fn apply_by(&mut self, manager: &str, config: Value, force: bool) -> Result<(), ApiError> {
        let now = self.now();
        let writer = Writer { manager, subresource: "", api_version: self.api_version, now: &now };
        check(&config, self.ty).map_err(ApiError::bad_request)?;
        let what = Apply { live: self.object.as_ref(), config: &config, scope: self.scope(), force };
        let applied = apply(&what, self.managed.clone(), &writer).map_err(|refused| match refused {
            Refused::Conflicts(conflicts) => ApiError::from(conflicts),
            Refused::Undecodable(why) => ApiError::bad_request(why),
        })?;
        self.store(applied.object, applied.managed);
        Ok(())
    }

    pub fn write(&mut self, manager: &str, object: Value) {
        let now = self.now();
        let writer = Writer { manager, subresource: "", api_version: self.api_version, now: &now };
        let managed = write(self.object.as_ref(), &object, &self.scope(), self.managed.clone(), &writer);
        self.store(object, managed);
    }

    /// As the server does: cleaned, and the managers through their encoding.
    fn store(&mut self, mut object: Value, managed: Managed) {
        crate::strict::conform(&mut object, self.ty).unwrap();
        self.object = Some(object);
        self.managed = managed.into_value().map(Managed::stored).unwrap_or_default();
    }

    pub fn object(&self) -> &Value {
        self.object.as_ref().unwrap()
    }

    /// What a manager owns, a path a line.
    pub fn owned(&self, manager: &str) -> Vec<String> {
        let entries = self.managed.entries().iter().filter(|entry| entry.manager == manager);
        entries
            .flat_map(|entry| entry.fields.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    pub fn managers(&self) -> Vec<&str> {
        self.managed.entries().iter().map(|entry| entry.manager.as_str()).collect()
    }
}

pub(super) fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

pub(super) fn containers(list: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": list}}}))
}
