//! The keeper: one small process per pod. It is started with its first client's connection as stdin (see `keeper::client`), takes the
//! pod's plan from it, and stays the parent of the pod's containers until it is told to stop.

mod client_connection;
mod clock;
mod container;
mod launch;
mod logs;
mod mount_options;
mod plan;
mod sandbox;
mod server;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use kernel::{CallError, Named, credentials, fds, process};
use rustix::process::Signal;

fn main() -> ExitCode {
    // A panic ends the process at once, in the keeper and in a child alike. Unwinding would close what a child has closed already, and
    // `abort` does not end the first process of a PID namespace that is being traced.
    std::panic::set_hook(Box::new(|panic| match writeln!(std::io::stderr(), "keeper: {panic}") {
        Ok(()) => process::exit_now(101),
        Err(_) => process::exit_now(102),
    }));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started us may be gone, and stderr with it: then only the status says it.
            match writeln!(std::io::stderr(), "keeper: {error}") {
                Ok(()) => ExitCode::FAILURE,
                Err(_) => ExitCode::from(2),
            }
        }
    }
}

fn run() -> Result<(), CallError> {
    // Before anything else: nobody reads our memory or follows our descriptors (CVE-2016-9962), and of those we were
    // started with only the connection stays.
    process::set_dumpable(false)?;
    let first = fds::take_stdio(0)?;
    fds::close_all_but(3, &[first.as_raw_fd()])?;
    match rustix::process::setsid() {
        // A session's leader already.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(CallError::new("setsid", "", errno)),
    }
    rustix::process::chdir("/").named("chdir", "/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    process::set_subreaper()?;
    let handled = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
    let signals = process::signal_fd(&handled.map(Signal::as_raw))?;
    let machine = container::Machine {
        capabilities: launch::verify::Status::of(None)?.permitted,
        last_capability: credentials::last_capability()?,
    };
    server::Server::new(first, signals, machine)?.run()
}
