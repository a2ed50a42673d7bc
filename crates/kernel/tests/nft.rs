//! The nf_tables encoder against the kernel, in a network namespace of its own.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Instant;

use kernel::netlink::{Family, NetlinkError, Socket};
use kernel::nft::{
    self, Base, Chain, ChainKind, CommitError, Data, DataType, Direction, Elements, Expr, Hook, Rule, Set,
    SetType, Table, Transaction, Verdict, interval_elements,
};
use kernel::route::netns;

fn socket(test: &str) -> Option<Socket> {
    match netns::create() {
        Ok(fd) => Some(Socket::open_in(fd.as_fd(), Family::Netfilter).unwrap()),
        Err(error) => {
            testkit::skipped(test, format_args!("make a network namespace: {error}"));
            None
        }
    }
}

/// A map of `n` addresses to one of 100 chains, a set of as many, and intervals.
fn large(n: u32) -> Table {
    let mut table = Table::default();
    let address = |i: u32| (0x0a00_0000 + i).to_be_bytes().to_vec();
    for c in 0..100 {
        let rules = vec![
            Rule(vec![
                Expr::Ct { key: nft::Ct::SourceIp(Direction::Reply), to: 1 },
                Expr::Lookup { set: "peers".into(), from: 1, to: None, inverted: false },
                Expr::Verdict(Verdict::Return),
            ]),
            Rule(vec![Expr::Verdict(Verdict::Drop)]),
        ];
        table.chains.insert(format!("c{c}"), Chain { base: None, rules });
    }
    let verdicts: Elements = (0..n)
        .map(|i| ((address(i), false), Data::Verdict(Verdict::Jump(format!("c{}", i % 100)))))
        .collect();
    table.sets.insert(
        "verdicts".into(),
        Set { of: SetType::verdict_map(&[DataType::Ipv4Addr]), elements: verdicts },
    );
    let peers = (0..n).map(|i| ((address(i), false), Data::Nothing)).collect();
    table.sets.insert("peers".into(), Set { of: SetType::set(&[DataType::Ipv4Addr]), elements: peers });
    let blocks = (0..n / 10)
        .map(|i| (i * 512, i * 512 + 255))
        .map(|(a, b)| (Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b)));
    let of = SetType::intervals(DataType::Ipv4Addr);
    table.sets.insert("blocks".into(), Set { of, elements: interval_elements(blocks) });
    let base = Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, drop: false });
    let rule = Rule(vec![
        Expr::Ct { key: nft::Ct::SourceIp(Direction::Original), to: 1 },
        Expr::Lookup { set: "verdicts".into(), from: 1, to: Some(0), inverted: false },
    ]);
    table.chains.insert("forward".into(), Chain { base, rules: vec![rule] });
    table
}

#[test]
fn ten_thousand_elements_go_in_one_batch_and_are_read_back() {
    let Some(mut socket) = socket("ten_thousand_elements_go_in_one_batch_and_are_read_back") else { return };
    let table = large(10_000);
    let mut transaction = Transaction::new(nft::Family::Inet, "t");
    transaction.add_table(Some("a test's"));
    transaction.add_all(&table);
    let (_, bytes) = transaction.size();
    assert!(bytes > 8 * 65536, "far beyond one attribute: {bytes} bytes");
    let started = Instant::now();
    transaction.commit(&mut socket).unwrap();
    println!("20 000 elements, {bytes} bytes: {:?}", started.elapsed());
    let read = nft::table(&mut socket, nft::Family::Inet, "t").unwrap().unwrap();
    assert_eq!(read.comment.as_deref(), Some("a test's"));
    assert_eq!(read.chains, table.chains);
    assert_eq!(read.sets, table.sets);

    // Then most of it goes again, as a difference.
    let smaller = large(100);
    let mut transaction = Transaction::new(nft::Family::Inet, "t");
    assert!(transaction.change(&table, &smaller));
    transaction.commit(&mut socket).unwrap();
    let read = nft::table(&mut socket, nft::Family::Inet, "t").unwrap().unwrap();
    assert_eq!(read.sets, smaller.sets);

    let mut transaction = Transaction::new(nft::Family::Inet, "t");
    assert!(transaction.change(&smaller, &Table::default()));
    transaction.commit(&mut socket).unwrap();
    let read = nft::table(&mut socket, nft::Family::Inet, "t").unwrap().unwrap();
    assert!(read.sets.is_empty() && read.chains.is_empty());
}

#[test]
fn a_transaction_is_all_or_nothing_and_its_error_names_the_object() {
    let Some(mut socket) = socket("a_transaction_is_all_or_nothing_and_its_error_names_the_object") else {
        return;
    };
    let mut transaction = Transaction::new(nft::Family::Inet, "t");
    transaction.add_table(None);
    transaction.add_set("good", &SetType::set(&[DataType::Ipv4Addr]));
    transaction.add_rule("missing", &Rule(vec![Expr::Verdict(Verdict::Drop)]));
    let error = transaction.commit(&mut socket).unwrap_err();
    let CommitError::Netlink(NetlinkError::Refused { object, errno, .. }) = &error else { panic!("{error}") };
    assert_eq!((object.as_str(), *errno), ("add a rule to chain missing", rustix::io::Errno::NOENT));
    assert_eq!(nft::table(&mut socket, nft::Family::Inet, "t").unwrap(), None);
}

#[test]
fn a_transaction_on_an_old_generation_is_refused() {
    let Some(mut socket) = socket("a_transaction_on_an_old_generation_is_refused") else { return };
    let generation = nft::generation(&mut socket).unwrap();
    let add = || {
        let mut transaction = Transaction::new(nft::Family::Inet, "t");
        transaction.add_table(None);
        transaction
    };
    add().commit_at(&mut socket, generation).unwrap();
    assert_eq!(nft::generation(&mut socket).unwrap(), generation + 1);
    let stale = add().commit_at(&mut socket, generation);
    assert!(matches!(stale, Err(CommitError::Stale(g)) if g == generation), "{stale:?}");
}

#[test]
fn intervals_that_touch_are_one() {
    let block = |a: &str, b: &str| -> (Ipv4Addr, Ipv4Addr) { (a.parse().unwrap(), b.parse().unwrap()) };
    let elements = interval_elements([
        block("10.0.1.0", "10.0.1.255"),
        block("10.0.0.0", "10.0.0.255"),
        block("255.0.0.0", "255.255.255.255"),
    ]);
    let keys: Vec<_> = elements.keys().map(|(key, end)| (key.as_slice(), *end)).collect();
    assert_eq!(
        keys,
        [
            (&[0, 0, 0, 0][..], true),
            (&[10, 0, 0, 0], false),
            (&[10, 0, 2, 0], true),
            (&[255, 0, 0, 0], false),
        ]
    );
}
