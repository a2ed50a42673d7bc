//! The machine's database of time zones, by which CronJobs are scheduled in other places than the machine's own.

use api::field::{Error, ErrorList, Path};
use api::registry::Resource;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde_json::Value;

/// The zone of this name, as IANA spells it.
///
/// # Errors
/// What to tell whoever named it.
pub fn load(name: &str) -> Result<TimeZone, String> {
    find(jiff::tz::db(), name)
}

fn find(database: &TimeZoneDatabase, name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    // The database does not mind capitals; other clusters that run the same manifests do.
    if let Ok(zone) = database.get(name)
        && zone.iana_name() == Some(name)
        && !zone.is_unknown()
    {
        return Ok(zone);
    }
    let unknown = format!("unknown time zone {name}");
    if database.available().next().is_none() {
        return Err(format!(
            "{unknown}: this machine has no time zone database (/usr/share/zoneinfo); install tzdata, or leave timeZone out"
        ));
    }
    Err(unknown)
}

/// Whether the machine knows the time zone of a CronJob; one that was there before may stay.
pub fn check(errors: &mut ErrorList, resource: &Resource, object: &Value, old: Option<&Value>) {
    if (resource.group, resource.plural) != ("batch", "cronjobs") {
        return;
    }
    let zone = |object: &Value| object.pointer("/spec/timeZone").and_then(Value::as_str).map(str::to_owned);
    let Some(name) = zone(object).filter(|_| old.and_then(zone) != zone(object)) else { return };
    let path = Path::new("spec").child("timeZone");
    // Validation has refused what is no name.
    if errors.iter().any(|error| error.field == path.as_str()) {
        return;
    }
    if let Err(why) = load(&name) {
        errors.push(Error::invalid(&path, name, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_names() {
        if jiff::tz::db().get("Europe/Berlin").is_err() {
            println!("SKIPPED: this machine has no time zone database");
            return;
        }
        for name in ["UTC", "Europe/Berlin", "US/Eastern", "Etc/GMT+5"] {
            assert_eq!(load(name).map(|zone| zone.iana_name().map(str::to_owned)), Ok(Some(name.to_owned())));
        }
        for name in ["europe/berlin", "utc", "Etc/Unknown", "Europe/Atlantis", ""] {
            assert_eq!(load(name), Err(format!("unknown time zone {name}")));
        }
    }

    #[test]
    fn a_machine_without_a_database_says_so() {
        let why = find(&TimeZoneDatabase::none(), "Europe/Berlin").unwrap_err();
        assert!(why.starts_with("unknown time zone Europe/Berlin: this machine has no time zone database"));
        assert!(find(&TimeZoneDatabase::none(), "UTC").is_ok(), "that one needs none");
    }
}
