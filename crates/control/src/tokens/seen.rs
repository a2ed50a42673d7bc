//! Tokens whose signature was found good, so that a client that comes back with its token costs no second look at it: a
//! signature takes longer than all the rest of a small request. Kept is what the text alone decides and what cannot change,
//! the claims; their times and what they are bound to are asked for at every request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ring::digest::{SHA256, digest};

use super::Claims;

/// A node's agent has one token per pod, and uses none of them: these are clients within pods.
const MOST: usize = 2048;

/// SHA-256 of the whole token: the log of a crash shows no token.
type Hash = [u8; 32];

/// Two generations of half the size: where the younger is full it becomes the elder, and what was not asked for since then
/// is forgotten.
#[derive(Default)]
struct Generations {
    young: HashMap<Hash, Arc<Claims>>,
    old: HashMap<Hash, Arc<Claims>>,
}

#[derive(Default)]
pub(super) struct Seen(Mutex<Generations>);

pub(super) fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

impl Seen {
    pub fn get(&self, hash: &Hash) -> Option<Arc<Claims>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = all.young.get(hash) {
            return Some(claims.clone());
        }
        let claims = all.old.remove(hash)?;
        all.put(*hash, claims.clone());
        Some(claims)
    }

    pub fn put(&self, hash: Hash, claims: Arc<Claims>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(hash, claims);
    }
}

impl Generations {
    fn put(&mut self, hash: Hash, claims: Arc<Claims>) {
        if self.young.len() >= MOST / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_there_are_never_more_than_so_many() {
        let seen = Seen::default();
        let claims = Arc::new(super::super::tests::claims());
        let hash = |number: usize| super::hash(&number.to_string());
        for number in 0..10 * MOST {
            seen.put(hash(number), claims.clone());
            assert!(seen.get(&hash(0)).is_some(), "used all the time, at {number}");
        }
        let all = seen.0.lock().unwrap();
        assert!(all.young.len() + all.old.len() <= MOST);
        drop(all);
        assert!(seen.get(&hash(1)).is_none() && seen.get(&hash(10 * MOST - 1)).is_some());
    }
}
