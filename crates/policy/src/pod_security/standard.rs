//! Levels and versions of the standard, and the policy that a namespace's labels ask for.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::NEWEST;

/// A level, the laxest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Privileged, Level::Baseline, Level::Restricted];

    pub fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A level that is none of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of privileged, baseline, restricted")]
pub struct NotALevel;

impl FromStr for Level {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Level, NotALevel> {
        Level::ALL.into_iter().find(|level| level.as_str() == text).ok_or(NotALevel)
    }
}

/// A version of the standard, by the minor version of Kubernetes 1 it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V1(u32),
    Latest,
}

impl Version {
    /// The minor version whose rules hold: a version newer than all rules has the newest ones.
    pub fn minor(self) -> u32 {
        match self {
            Version::V1(minor) => minor.min(NEWEST),
            Version::Latest => NEWEST,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::V1(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

/// A version of another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be \"latest\" or \"v1.x\"")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Version, NotAVersion> {
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let digits = text.strip_prefix("v1.").ok_or(NotAVersion)?;
        let canonical = digits == "0" || !digits.starts_with('0');
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse() {
            Ok(minor) if canonical && number => Ok(Version::V1(minor)),
            _ => Err(NotAVersion),
        }
    }
}

/// `restricted:latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl LevelVersion {
    pub const PRIVILEGED: LevelVersion = LevelVersion { level: Level::Privileged, version: Version::Latest };
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What happens to a pod that violates a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It is let in, and the audit log says so.
    Audit,
    /// It is let in, and the client is warned.
    Warn,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Enforce, Mode::Audit, Mode::Warn];

    /// The label of a namespace that sets the mode's level.
    pub fn level_label(self) -> &'static str {
        match self {
            Mode::Enforce => "pod-security.kubernetes.io/enforce",
            Mode::Audit => "pod-security.kubernetes.io/audit",
            Mode::Warn => "pod-security.kubernetes.io/warn",
        }
    }

    /// The label of a namespace that sets the mode's version.
    pub fn version_label(self) -> &'static str {
        match self {
            Mode::Enforce => "pod-security.kubernetes.io/enforce-version",
            Mode::Audit => "pod-security.kubernetes.io/audit-version",
            Mode::Warn => "pod-security.kubernetes.io/warn-version",
        }
    }
}

/// A level for each mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Default for Policy {
    /// Nothing is asked of any pod.
    fn default() -> Policy {
        let none = LevelVersion::PRIVILEGED;
        Policy { enforce: none, audit: none, warn: none }
    }
}

/// A label whose value is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelError {
    pub label: &'static str,
    pub value: String,
    pub detail: String,
}

impl Policy {
    pub fn mode(&self, mode: Mode) -> LevelVersion {
        match mode {
            Mode::Enforce => self.enforce,
            Mode::Audit => self.audit,
            Mode::Warn => self.warn,
        }
    }

    pub fn set(&mut self, mode: Mode, asked: LevelVersion) {
        *self.mode_mut(mode) = asked;
    }

    fn mode_mut(&mut self, mode: Mode) -> &mut LevelVersion {
        match mode {
            Mode::Enforce => &mut self.enforce,
            Mode::Audit => &mut self.audit,
            Mode::Warn => &mut self.warn,
        }
    }

    /// Whether any pod could violate it.
    pub fn asks_nothing(&self) -> bool {
        Mode::ALL.iter().all(|mode| self.mode(*mode).level == Level::Privileged)
    }

    /// The policy of a namespace with these labels, `defaults` where it has none, and which labels cannot be read. It fails
    /// closed: an unreadable level is enforced as `restricted` (and, as upstream does, not audited or warned of), an
    /// unreadable version is the latest. Where a label asks to enforce more than is warned of, that is warned of too, unless
    /// a label says what is.
    pub fn of_labels(labels: &BTreeMap<String, String>, defaults: Policy) -> (Policy, Vec<LabelError>) {
        let (mut policy, mut errors) = (defaults, Vec::new());
        for mode in Mode::ALL {
            let asked = policy.mode_mut(mode);
            if let Some(value) = labels.get(mode.level_label()) {
                asked.level = value.parse().unwrap_or_else(|error: NotALevel| {
                    let detail = error.to_string();
                    errors.push(LabelError { label: mode.level_label(), value: value.clone(), detail });
                    if mode == Mode::Enforce { Level::Restricted } else { Level::Privileged }
                });
            }
            if let Some(value) = labels.get(mode.version_label()) {
                asked.version = value.parse().unwrap_or_else(|error: NotAVersion| {
                    let detail = error.to_string();
                    errors.push(LabelError { label: mode.version_label(), value: value.clone(), detail });
                    Version::Latest
                });
            }
        }
        let is_enforced =
            labels.get(Mode::Enforce.level_label()).is_some_and(|level| level.parse::<Level>().is_ok());
        if is_enforced
            && !labels.contains_key(Mode::Warn.level_label())
            && policy.enforce.level > policy.warn.level
        {
            policy.warn.level = policy.enforce.level;
            if !labels.contains_key(Mode::Warn.version_label()) {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}
