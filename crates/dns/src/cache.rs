//! What other servers said, for a while: bounded in number and in size, oldest first out.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, Record, RecordType},
};

/// At most so many answers are kept, and none with more records.
const MOST_ANSWERS: usize = 4096;
const MOST_RECORDS: usize = 32;
/// Nothing is kept longer, whatever it says of itself: who changes a name outside should not wait for us.
const LONGEST: u32 = 30;

/// A question: the name in lower case, the type, and whether signatures were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub name: String,
    pub kind: RecordType,
    pub dnssec: bool,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    pub authentic: bool,
}

impl Said {
    /// How long it may be kept, in seconds: the shortest of its records, or what the zone says of names that are not there
    /// (RFC 2308). Failures are not kept.
    fn keep(&self) -> u32 {
        if !matches!(self.code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return 0;
        }
        let negative = self.answers.is_empty() || self.code == ResponseCode::NXDomain;
        let of_zone = self.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
        let shortest = self.answers.iter().map(|record| record.ttl).min();
        let keep = if negative {
            of_zone.unwrap_or(0).min(shortest.unwrap_or(u32::MAX))
        } else {
            shortest.unwrap_or(0)
        };
        keep.min(LONGEST)
    }
}

struct Kept {
    said: Rc<Said>,
    at: Instant,
    until: Instant,
}

#[derive(Default)]
pub struct Cache {
    kept: HashMap<Question, Kept>,
    order: VecDeque<Question>,
}

impl Cache {
    /// What was said, with what is left of its time.
    pub fn get(&self, question: &Question, now: Instant) -> Option<Said> {
        let kept = self.kept.get(question).filter(|kept| now < kept.until)?;
        let age = u32::try_from(now.duration_since(kept.at).as_secs()).unwrap_or(u32::MAX);
        let mut said = (*kept.said).clone();
        for record in said.answers.iter_mut().chain(&mut said.authorities).chain(&mut said.additionals) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(said)
    }

    pub fn put(&mut self, question: Question, said: Rc<Said>, now: Instant) {
        let keep = said.keep();
        let records = said.answers.len() + said.authorities.len() + said.additionals.len();
        if keep == 0 || records > MOST_RECORDS {
            return;
        }
        let until = now + Duration::from_secs(keep.into());
        if self.kept.insert(question.clone(), Kept { said, at: now, until }).is_none() {
            self.order.push_back(question);
        }
        while self.kept.len() > MOST_ANSWERS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.kept.remove(&oldest);
        }
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{
        Name,
        rdata::{A, SOA},
    };

    use super::*;

    fn question(name: &str) -> Question {
        Question { name: name.to_owned(), kind: RecordType::A, dnssec: false }
    }

    fn record(ttl: u32) -> Record {
        Record::from_rdata(Name::root(), ttl, RData::A(A::new(192, 0, 2, 1)))
    }

    fn said(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Said {
        Said { code, answers, authorities, additionals: Vec::new(), authentic: false }
    }

    #[test]
    fn answers_are_kept_as_long_as_they_say_and_no_longer_than_we_say() {
        let soa = |ttl, minimum| {
            let data = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, minimum);
            Record::from_rdata(Name::root(), ttl, RData::SOA(data))
        };
        for (what, said, seconds) in [
            ("the shortest record", said(ResponseCode::NoError, vec![record(20), record(10)], vec![]), 10),
            ("a day", said(ResponseCode::NoError, vec![record(86_400)], vec![]), LONGEST),
            ("no such name", said(ResponseCode::NXDomain, vec![], vec![soa(20, 7)]), 7),
            ("no such record", said(ResponseCode::NoError, vec![], vec![soa(6, 60)]), 6),
            ("nothing says how long", said(ResponseCode::NXDomain, vec![], vec![]), 0),
            ("a failure", said(ResponseCode::ServFail, vec![], vec![soa(60, 60)]), 0),
            ("a zero", said(ResponseCode::NoError, vec![record(0)], vec![]), 0),
        ] {
            assert_eq!(said.keep(), seconds, "{what}");
        }
    }

    #[test]
    fn time_left_shrinks_and_ends() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(question("a"), Rc::new(said(ResponseCode::NoError, vec![record(10)], vec![])), start);
        let left = |seconds| {
            cache.get(&question("a"), start + Duration::from_secs(seconds)).map(|said| said.answers[0].ttl)
        };
        assert_eq!((left(0), left(9), left(10)), (Some(10), Some(1), None));
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let answer = Rc::new(said(ResponseCode::NoError, vec![record(10)], vec![]));
        for number in 0..=MOST_ANSWERS {
            cache.put(question(&number.to_string()), answer.clone(), now);
        }
        assert_eq!((cache.len(), cache.order.len()), (MOST_ANSWERS, MOST_ANSWERS));
        assert!(cache.get(&question("0"), now).is_none() && cache.get(&question("1"), now).is_some());
        let many = said(ResponseCode::NoError, vec![record(10); MOST_RECORDS + 1], vec![]);
        cache.put(question("many"), Rc::new(many), now);
        assert!(cache.get(&question("many"), now).is_none());
    }
}
