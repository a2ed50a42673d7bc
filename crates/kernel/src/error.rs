//! The one shape of a failed system call: which call, on what, and the errno. Operations build their own errors from it.

use rustix::io::Errno;

/// A system call that failed. Displays as `openat2 /proc/x: No such file or directory (os error 2)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}{}{on}: {}", if on.is_empty() { "" } else { " " }, std::io::Error::from(*errno))]
pub struct CallError {
    /// The system call's name, or the wrapped operation's where several make one.
    pub call: &'static str,
    /// The path, descriptor or field it was made on; may be empty.
    pub on: String,
    pub errno: Errno,
}

impl CallError {
    #[must_use]
    pub fn new(call: &'static str, on: impl Into<String>, errno: Errno) -> Self {
        Self { call, on: on.into(), errno }
    }

    /// From a `std::io::Error`; one without an errno counts as EIO.
    #[must_use]
    pub fn from_io(call: &'static str, on: impl Into<String>, error: &std::io::Error) -> Self {
        Self::new(call, on, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// From `errno` as the last C library call left it.
    pub(crate) fn last(call: &'static str, on: impl Into<String>) -> Self {
        Self::from_io(call, on, &std::io::Error::last_os_error())
    }
}

/// Names the call and its object on a plain errno.
pub trait Named<T> {
    /// # Errors
    /// The error it was called on, named.
    fn named(self, call: &'static str, on: impl std::fmt::Display) -> Result<T, CallError>;
}

impl<T> Named<T> for Result<T, Errno> {
    fn named(self, call: &'static str, on: impl std::fmt::Display) -> Result<T, CallError> {
        self.map_err(|errno| CallError::new(call, on.to_string(), errno))
    }
}

impl<T> Named<T> for Result<T, std::io::Error> {
    fn named(self, call: &'static str, on: impl std::fmt::Display) -> Result<T, CallError> {
        self.map_err(|error| CallError::from_io(call, on.to_string(), &error))
    }
}
