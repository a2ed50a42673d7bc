//! Listens for what others do to the node's network: transactions on the rule set, and links that go. Nothing polls: the
//! thread sleeps until the kernel has something to say.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use kernel::netlink::{Family, Group, Socket};
use kernel::nft::{GENERATION_EVENT, Generation};
use kernel::route::LinkEvent;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::node_net::Shared;
use super::pods::{NetError, NetEvent};
use super::table::POD_LINK;

/// The listener's thread; it ends when this is dropped.
pub struct Listener {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// In the calling thread's network namespace.
    pub(super) fn start(shared: Arc<Shared>) -> Result<Listener, NetError> {
        let mut rules = Socket::open(Family::Netfilter)?;
        // Only that someone committed, not the thousands of elements of our own transactions.
        rules.only(GENERATION_EVENT)?;
        rules.join(Group::Nftables)?;
        let mut links = Socket::open(Family::Route)?;
        links.set_receive_buffer(1 << 20)?;
        links.join(Group::Links)?;
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| NetError::Call { call: "eventfd", errno })?;
        let stop = Arc::new(stop);
        let until = stop.clone();
        let thread = std::thread::Builder::new()
            .name("net-listener".into())
            .stack_size(512 << 10)
            .spawn(move || {
                while wait(&rules, &links, &until) {
                    links_changed(&shared, &mut links);
                    rules_changed(&shared, &mut rules);
                }
            })
            .map_err(NetError::Thread)?;
        Ok(Listener { stop, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(errno) = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()) {
            eprintln!("stop the network's listener: write to an eventfd: {errno}");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the network's listener panicked");
        }
    }
}

/// False when the listener shall stop.
fn wait(rules: &Socket, links: &Socket, stop: &OwnedFd) -> bool {
    let mut fds = [
        PollFd::new(rules, PollFlags::IN),
        PollFd::new(links, PollFlags::IN),
        PollFd::new(stop, PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return fds[2].revents().is_empty(),
            Err(Errno::INTR) => {}
            Err(errno) => {
                eprintln!("the network's listener ends: poll: {errno}");
                return false;
            }
        }
    }
}

fn links_changed(shared: &Shared, links: &mut Socket) {
    let mut gone = Vec::new();
    let drained = links.drain(|event| {
        if let Some(LinkEvent::Gone { index, name }) = LinkEvent::parse(event)
            && name.starts_with(POD_LINK)
        {
            gone.push(index);
        }
    });
    if !gone.is_empty() {
        let mut state = shared.lock();
        gone.into_iter().for_each(|link| state.link_gone(link));
    }
    match drained {
        Ok(true) => {}
        Ok(false) => {
            if let Err(error) = shared.lock().find_gone() {
                eprintln!("look for links that are gone: {error}");
            }
        }
        Err(error) => eprintln!("read link events: {error}"),
    }
}

fn rules_changed(shared: &Shared, rules: &mut Socket) {
    let mut newest: Option<Generation> = None;
    let drained = rules.drain(|event| {
        if let Some(generation) = Generation::parse(event) {
            newest = Some(generation);
        }
    });
    let lost = match drained {
        Ok(complete) => !complete,
        Err(error) => {
            eprintln!("read rule set events: {error}");
            return;
        }
    };
    let mut state = shared.lock();
    let by = match &newest {
        // Ours, or looked at already: the counter wraps, so distance counts.
        Some(Generation { id, .. }) if !lost && (id.wrapping_sub(state.generation) as i32) <= 0 => return,
        Some(Generation { by, .. }) => by.clone(),
        None if lost => "someone".to_string(),
        None => return,
    };
    let event = match state.reconcile(&shared.config) {
        Ok(false) => return,
        Ok(true) => NetEvent::Repaired { by, generation: state.generation },
        Err(error) => NetEvent::RepairFailed { by, error: error.to_string() },
    };
    drop(state);
    (shared.config.on_event)(event);
}
