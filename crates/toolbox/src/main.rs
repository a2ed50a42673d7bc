//! The program inside the tool image: what the demo and the tests run in pods. One static binary that acts by the name
//! it is called by (`/bin/serve`, as busybox does) or by its first argument (`tool serve`). Exit codes are part of its
//! interface; a wrong call exits 64 and says how to call it.

mod files;
mod first;
mod grpc;
mod link;
mod net;
mod process;
mod resolve;
mod rules;
mod show;
mod sockets;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
};

/// How a command ends when it did not do what it was called for.
enum Failure {
    /// Called wrongly: the usage.
    Usage(&'static str),
    /// What failed, with the error's name.
    Failed(String),
}

type Outcome = Result<u8, Failure>;

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}

struct Command {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Outcome,
}

const fn command(name: &'static str, usage: &'static str, run: fn(&[String]) -> Outcome) -> Command {
    Command { name, usage, run }
}

const COMMANDS: &[Command] = &[
    command("alloc", "MB: touch so much memory, then wait", process::alloc),
    command("cat", "FILE…: print files", files::cat),
    command("chmod", "MODE FILE…: the mode as octal digits", files::chmod),
    command(
        "connect",
        "HOST PORT [--udp] [--timeout MS] [--get PATH]: 0 connected, 1 refused, 2 timed out, 3 unreachable",
        net::connect,
    ),
    command("echo", "WORD…: print them", files::echo),
    command("env", ": print the environment", show::env),
    command("exit", "CODE", process::exit),
    command("false", ": exit 1", |_| Ok(1)),
    command(
        "first",
        "ADDRESS PORT: connect at once; 0 if the first SYN was answered, 1 if one had to be sent again",
        first::first,
    ),
    command(
        "fork-bomb",
        "COUNT: start so many processes that sleep, say how many could be",
        process::fork_bomb,
    ),
    command(
        "flush",
        ": delete every packet filter table of this network, which needs NET_ADMIN",
        rules::flush,
    ),
    command("hostname", ": print it", show::hostname),
    command("id", ": print uid, gid, groups and effective ids", show::id),
    command(
        "ipc",
        "create NAME | ls: POSIX message queues and SysV objects of the IPC namespace",
        process::ipc,
    ),
    command("kill", "PID [SIGNAL]: 15 if not given", process::kill),
    command("knock", "PORT BLOCK…: datagrams to every address of these /24, without end", first::knock),
    command("ls", "[PATH…]: mode, owner, group, name", files::ls),
    command("mkdir", "PATH…", files::mkdir),
    command("mklink", "NAME: create a veth pair, which needs NET_ADMIN", link::mklink),
    command("names", "PORT NAME=ADDRESS…: a name server that knows these names and no other", resolve::names),
    command("now", ": print the time as nanoseconds since 1970, then wait", process::now),
    command("pids", ": the processes that /proc shows", process::pids),
    command("read", "FILE: print it", files::cat),
    command("received", "MS: wait, then say how many packets came in by eth0; 0 if none", first::received),
    command("seize", "TABLE: put an empty inet table in its place that nobody else may change", rules::seize),
    command(
        "resolve",
        "NAME [TYPE] [--tcp] [--server ADDRESS]: 0 found, 1 not there, 2 no answer, 3 the server failed",
        resolve::resolve,
    ),
    command("rm", "FILE…: remove files", files::rm),
    command(
        "serve",
        "PORT… [--udp PORT…] [--grpc PORT…]: HTTP, and echo for what is not HTTP; gRPC health",
        net::serve,
    ),
    command(
        "setuid-test",
        ": run /bin/setuid-tool id; 0 if that gave root, 1 if it did not",
        process::setuid_test,
    ),
    command("shm", "write NAME TEXT | read NAME: a file in /dev/shm", process::shm),
    command("show", "[KEY…]: what the kernel says of this process, as JSON", show::show),
    command("signal-echo", ": print each signal that comes; SIGTERM ends it with 0", process::signal_echo),
    command("sockets", "PATH DIR…: what each unix socket below answers to GET PATH", sockets::sockets),
    command("stat", "PATH: owner, group and mode of the file itself", files::stat),
    command("sleep", "SECONDS|infinity: SIGTERM ends it with 143", process::sleep),
    command("true", ": exit 0", |_| Ok(0)),
    command("write", "FILE TEXT: replace the file's content", files::write),
];

fn main() -> ExitCode {
    let mut args = env::args_os();
    let called: OsString = args.next().unwrap_or_default();
    let mut args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let name =
        Path::new(&called).file_name().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    let mut command = name.and_then(|name| COMMANDS.iter().find(|command| command.name == name));
    if command.is_none() && !args.is_empty() {
        let first = args.remove(0);
        command = COMMANDS.iter().find(|command| command.name == first);
        if command.is_none() && first != "help" && first != "--help" {
            complain(&format!("tool: no command {first:?}"));
        }
    }
    let Some(command) = command else {
        for command in COMMANDS {
            complain(&format!("  {} {}", command.name, command.usage));
        }
        return ExitCode::from(64);
    };
    match (command.run)(&args) {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Usage(why)) => {
            complain(&format!("{}: {why}\nusage: {} {}", command.name, command.name, command.usage));
            ExitCode::from(64)
        }
        Err(Failure::Failed(why)) => {
            complain(&format!("{}: {why}", command.name));
            ExitCode::from(1)
        }
    }
}

/// A line to stderr; there is nobody to tell when that fails.
fn complain(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// A line to stdout, at once: logs are followed while the program runs.
fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(failed("write to stdout"))
}
