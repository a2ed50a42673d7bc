//! Processes: signals, limits, IPC.

use std::{
    fs, io,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::Signals,
};

use crate::{Failure, Outcome, failed, say};

/// Waits for SIGTERM or SIGINT. As PID 1 of its namespace a program without a handler would not get them at all.
pub fn until_terminated() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed("sigaction"))?;
    signals.forever().next();
    Ok(())
}

/// For measurements: what the clock said at the program's first own instruction, near enough.
pub fn now(_: &[String]) -> Outcome {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = time.map_err(|_| Failure::Failed("the clock says a time before 1970".to_owned()))?;
    say(&time.as_nanos().to_string())?;
    until_terminated().map(|()| 0)
}

pub fn sleep(args: &[String]) -> Outcome {
    let seconds = match args.first().map(String::as_str) {
        None => return Err(Failure::Usage("how long, please")),
        Some("infinity" | "inf") => None,
        Some(text) => {
            let (number, unit) = match text.char_indices().last() {
                Some((at, unit @ ('s' | 'm' | 'h' | 'd'))) => (&text[..at], unit),
                _ => (text, 's'),
            };
            let number: f64 = number.parse().map_err(|_| Failure::Usage("a number of seconds"))?;
            let factor = match unit {
                'm' => 60.0,
                'h' => 3600.0,
                'd' => 86400.0,
                _ => 1.0,
            };
            let span = Duration::try_from_secs_f64(number * factor);
            Some(span.map_err(|_| Failure::Usage("a number of seconds"))?)
        }
    };
    let (send, receive) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed("sigaction"))?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if send.send(signal).is_err() {
                return;
            }
        }
    });
    let signal = match seconds {
        None => receive.recv().ok(),
        Some(span) => receive.recv_timeout(span).ok(),
    };
    // As a shell reports a process that a signal ended.
    Ok(signal.and_then(|signal| u8::try_from(128 + signal).ok()).unwrap_or(0))
}

pub fn signal_echo(_: &[String]) -> Outcome {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])
        .map_err(failed("sigaction"))?;
    say("ready")?;
    for signal in signals.forever() {
        say(signal_hook::low_level::signal_name(signal).unwrap_or("?"))?;
        if signal == SIGTERM {
            break;
        }
    }
    Ok(0)
}

pub fn exit(args: &[String]) -> Outcome {
    args.first().and_then(|code| code.parse().ok()).ok_or(Failure::Usage("a code from 0 to 255"))
}

pub fn kill(args: &[String]) -> Outcome {
    let number = |at: usize| args.get(at).and_then(|word| word.parse::<i32>().ok());
    let pid = number(0).and_then(Pid::from_raw).ok_or(Failure::Usage("a process id"))?;
    let signal =
        Signal::from_named_raw(number(1).unwrap_or(15)).ok_or(Failure::Usage("a signal's number"))?;
    kill_process(pid, signal)
        .map_err(io::Error::from)
        .map_err(failed(format!("kill {}", pid.as_raw_nonzero())))?;
    Ok(0)
}

pub fn pids(_: &[String]) -> Outcome {
    let mut found: Vec<u32> = fs::read_dir("/proc")
        .map_err(failed("/proc"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    for pid in found {
        // Some end while we look.
        if let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) {
            say(&format!("{pid} {}", name.trim_end()))?;
        }
    }
    Ok(0)
}

pub fn alloc(args: &[String]) -> Outcome {
    let megabytes: usize =
        args.first().and_then(|word| word.parse().ok()).ok_or(Failure::Usage("a number of megabytes"))?;
    let mut held = Vec::new();
    for count in 1..=megabytes {
        // Not zeros: those would be pages that do not exist yet.
        held.push(vec![1_u8; 1 << 20]);
        if count % 16 == 0 || count == megabytes {
            say(&format!("{count} MB"))?;
        }
    }
    until_terminated()?;
    drop(held);
    Ok(0)
}

pub fn fork_bomb(args: &[String]) -> Outcome {
    let wanted: usize =
        args.first().and_then(|word| word.parse().ok()).ok_or(Failure::Usage("a number of processes"))?;
    let mut children = Vec::new();
    let mut why = None;
    while children.len() < wanted {
        let child = Command::new("/proc/self/exe").args(["sleep", "60"]).stdin(Stdio::null()).spawn();
        match child {
            Ok(child) => children.push(child),
            Err(error) => {
                why = Some(error);
                break;
            }
        }
    }
    say(&format!(
        "started {} of {wanted}{}",
        children.len(),
        why.map_or(String::new(), |error| format!(": {error}"))
    ))?;
    let complete = children.len() == wanted;
    for mut child in children {
        child.kill().and_then(|()| child.wait()).map_err(failed("kill a child"))?;
    }
    Ok(u8::from(!complete))
}

pub fn setuid_test(_: &[String]) -> Outcome {
    let output = Command::new("/bin/setuid-tool").arg("id").output().map_err(failed("/bin/setuid-tool"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    say(&text)?;
    Ok(u8::from(!text.contains("euid=0")))
}

pub fn shm(args: &[String]) -> Outcome {
    match args {
        [verb, name, text] if verb == "write" => {
            fs::write(format!("/dev/shm/{name}"), format!("{text}\n")).map_err(failed(name)).map(|()| 0)
        }
        [verb, name] if verb == "read" => {
            let text = fs::read_to_string(format!("/dev/shm/{name}")).map_err(failed(name))?;
            say(text.trim_end()).map(|()| 0)
        }
        _ => Err(Failure::Usage("write NAME TEXT or read NAME")),
    }
}

/// A file made in an mqueue file system is a POSIX message queue of the IPC namespace that the mount belongs to.
pub fn ipc(args: &[String]) -> Outcome {
    match args {
        [verb, name] if verb == "create" => {
            fs::File::create_new(format!("/dev/mqueue/{name}"))
                .map_err(failed(format!("/dev/mqueue/{name}")))?;
            say(&format!("created queue {name}")).map(|()| 0)
        }
        [verb] if verb == "ls" => {
            for entry in fs::read_dir("/dev/mqueue").map_err(failed("/dev/mqueue"))? {
                say(&format!(
                    "queue {}",
                    entry.map_err(failed("/dev/mqueue"))?.file_name().to_string_lossy()
                ))?;
            }
            for kind in ["shm", "sem", "msg"] {
                let list =
                    fs::read_to_string(format!("/proc/sysvipc/{kind}")).map_err(failed("/proc/sysvipc"))?;
                for line in list.lines().skip(1) {
                    let mut words = line.split_whitespace();
                    say(&format!(
                        "{kind} key={} id={}",
                        words.next().unwrap_or("?"),
                        words.next().unwrap_or("?")
                    ))?;
                }
            }
            Ok(0)
        }
        _ => Err(Failure::Usage("create NAME or ls")),
    }
}
