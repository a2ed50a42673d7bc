//! Standard output and standard error of the commands. Whoever reads them may go away (`| head`): then a command ends quietly,
//! as one that SIGPIPE ends would. (The signal itself stays ignored: it would also end a command whose API server goes away.)

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// What a shell shows for a program that SIGPIPE has ended (128 + 13).
pub const NOBODY_READS: u8 = 141;

static READER_IS_GONE: AtomicBool = AtomicBool::new(false);

/// A stream of the command's whose reader may go away.
pub struct Out<W>(W);

/// Standard output, which this thread alone writes meanwhile.
pub fn stdout() -> Out<io::StdoutLock<'static>> {
    Out(io::stdout().lock())
}

/// Standard error, likewise.
pub fn stderr() -> Out<io::StderrLock<'static>> {
    Out(io::stderr().lock())
}

/// Whether to colour what goes to standard output.
pub fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Whether a write has failed because nobody reads any more: nothing is to be said to anybody then.
pub fn reader_is_gone() -> bool {
    READER_IS_GONE.load(Ordering::Relaxed)
}

/// Says on standard error what went wrong, if anybody listens.
pub fn complain(text: impl fmt::Display) {
    if !reader_is_gone() {
        // There is nowhere to say that this failed.
        drop(writeln!(stderr(), "{text}"));
    }
}

/// Says on standard error why a command of ours has failed.
pub fn failed(who: &str, error: &anyhow::Error) {
    complain(format_args!("{who}{}", told(error)));
}

/// The error and its causes in a line. What commands share with kubectl begins as kubectl's own errors do, which behind our
/// name says it twice; and a cause whose words its error took over is not told again.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.strip_prefix("error: ").unwrap_or(&cause);
        if text.is_empty() {
            text = cause.to_owned();
        } else if !text.ends_with(cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn note<T>(done: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &done
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        READER_IS_GONE.store(true, Ordering::Relaxed);
    }
    done
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note(self.0.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        note(self.0.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_once() {
        let io = || io::Error::other("no space left");
        for (error, text) in [
            (anyhow::Error::from(io()).context("write x"), "write x: no space left"),
            (anyhow::Error::from(io()).context("write x: no space left"), "write x: no space left"),
            (anyhow::anyhow!("error: the path \"x\" does not exist"), "the path \"x\" does not exist"),
            (anyhow::Error::from(io()).context("error: read x"), "read x: no space left"),
        ] {
            assert_eq!(told(&error), text);
        }
    }
}
