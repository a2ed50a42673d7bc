//! The compiled program, run by a small interpreter, against a naive reading of the profile.

use super::*;
use proptest::prelude::*;

/// Runs a classic BPF program on one call. Panics on anything the kernel's checker would refuse. Returns the value and the steps taken.
fn run(filter: &Filter, arch: u32, nr: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = Vec::new();
    data.extend(nr.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut pc, mut accumulator, mut steps) = (0_usize, 0_u32, 0);
    loop {
        let instruction = filter.program[pc];
        steps += 1;
        pc += 1;
        let k = instruction.k;
        let mut jump = |holds: bool| pc += usize::from(if holds { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => {
                let at = k as usize;
                accumulator = u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            }
            0x05 => pc += k as usize,
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x54 => accumulator &= k,
            0x06 => return (k, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the profile says, read rule by rule.
fn naive(profile: &Profile, arch: Arch, name: &str, args: [u64; 6]) -> Action {
    if arch != Arch::native() && !profile.architectures.contains(&arch) {
        return Action::KillProcess;
    }
    for rule in profile.rules.iter().filter(|rule| rule.names.iter().any(|n| n == name)) {
        let holds = |condition: &Condition| {
            let arg = args[usize::from(condition.index)];
            let value = condition.value;
            match condition.compare {
                Compare::NotEqual => arg != value,
                Compare::Less => arg < value,
                Compare::LessOrEqual => arg <= value,
                Compare::Equal => arg == value,
                Compare::GreaterOrEqual => arg >= value,
                Compare::Greater => arg > value,
                Compare::MaskedEqual => arg & value == condition.value_two & value,
            }
        };
        let mut indexes: Vec<u8> = rule.conditions.iter().map(|c| c.index).collect();
        indexes.sort_unstable();
        let repeated = indexes.windows(2).any(|pair| pair[0] == pair[1]);
        let matched =
            if repeated { rule.conditions.iter().any(holds) } else { rule.conditions.iter().all(holds) };
        if matched {
            return rule.action;
        }
    }
    profile.default
}

const NAMES: [&str; 14] = [
    "read",
    "write",
    "open",
    "clone",
    "clone3",
    "personality",
    "socket",
    "ioctl",
    "execve",
    "kexec_load",
    "mount",
    "statx",
    "mseal",
    "bpf",
];
const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::KillProcess),
        Just(Action::Log),
        (1_u16..200).prop_map(Action::Errno),
        Just(Action::Trap),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        Just(1_u64 << 32),
        Just((1_u64 << 32) + 1),
        Just(u64::MAX),
        Just(0x7e02_0000),
        any::<u64>()
    ]
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let compare = prop_oneof![
        Just(Compare::NotEqual),
        Just(Compare::Less),
        Just(Compare::LessOrEqual),
        Just(Compare::Equal),
        Just(Compare::GreaterOrEqual),
        Just(Compare::Greater),
        Just(Compare::MaskedEqual),
    ];
    prop::collection::vec(
        (0_u8..3, compare, value(), value()).prop_map(|(index, compare, value, value_two)| Condition {
            index,
            compare,
            value,
            value_two,
        }),
        0..3,
    )
}

fn profile() -> impl Strategy<Value = Profile> {
    let rule = (prop::collection::vec(prop::sample::select(&NAMES[..]), 1..5), action(), conditions())
        .prop_map(|(names, action, conditions)| Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            conditions,
        });
    (action(), prop::sample::subsequence(&ARCHES[..], 0..=4), prop::collection::vec(rule, 0..8))
        .prop_map(|(default, architectures, rules)| Profile { default, architectures, rules })
}

proptest! {
    #[test]
    fn the_filter_decides_as_the_profile_reads(
        profile in profile(),
        calls in prop::collection::vec((prop::sample::select(&NAMES[..]), value(), value(), value()), 20),
    ) {
        let filter = compile(&profile).unwrap();
        for (name, a, b, c) in calls {
            for arch in ARCHES {
                let Some(number) = arch.number(name) else { continue };
                let args = [a, b, c, 0, 0, 0];
                let (seen, _) = run(&filter, arch.audit(), number, args);
                prop_assert_eq!(seen, naive(&profile, arch, name, args).value(), "{} on {:?}", name, arch);
            }
        }
    }
}

/// A profile as long as RuntimeDefault: almost every call allowed, a few with conditions, clone3 with an errno of its own.
fn long_profile() -> Profile {
    let forbidden = ["kexec_load", "mount", "bpf", "clone3", "clone", "init_module", "ptrace", "reboot"];
    let names = syscalls::SYSCALLS.iter().map(|row| row.0).filter(|name| !forbidden.contains(name));
    Profile {
        default: Action::Errno(1),
        architectures: ARCHES.to_vec(),
        rules: vec![
            Rule { names: names.map(str::to_owned).collect(), action: Action::Allow, conditions: vec![] },
            Rule {
                names: vec!["clone".into()],
                action: Action::Allow,
                conditions: vec![Condition {
                    index: 0,
                    compare: Compare::MaskedEqual,
                    value: 0x7e02_0000,
                    value_two: 0,
                }],
            },
            Rule { names: vec!["clone3".into()], action: Action::Errno(38), conditions: vec![] },
        ],
    }
}

#[test]
fn a_long_profile_stays_cheap() {
    let profile = long_profile();
    let filter = compile(&profile).unwrap();
    assert!(filter.len() < 600, "{} instructions", filter.len());
    for row in syscalls::SYSCALLS {
        for arch in ARCHES {
            let Some(number) = arch.number(row.0) else { continue };
            let (seen, steps) = run(&filter, arch.audit(), number, [0; 6]);
            assert_eq!(seen, naive(&profile, arch, row.0, [0; 6]).value(), "{} {arch:?}", row.0);
            assert!(steps <= 24, "{} takes {steps} steps on {arch:?}", row.0);
        }
    }
}

#[test]
fn clone3_has_its_own_errno_and_clone_its_mask() {
    let filter = compile(&long_profile()).unwrap();
    let clone = |flags| run(&filter, Arch::X86_64.audit(), 56, [flags, 0, 0, 0, 0, 0]).0;
    assert_eq!(clone(17), Action::Allow.value());
    assert_eq!(clone(0x1000_0000), Action::Errno(1).value());
    assert_eq!(run(&filter, Arch::X86_64.audit(), 435, [0; 6]).0, Action::Errno(38).value());
}

#[test]
fn an_architecture_the_profile_does_not_name_is_killed() {
    let mut profile = long_profile();
    profile.architectures.clear();
    let filter = compile(&profile).unwrap();
    let kill = Action::KillProcess.value();
    for arch in ARCHES.into_iter().filter(|arch| *arch != Arch::native()) {
        assert_eq!(run(&filter, arch.audit(), arch.number("read").unwrap(), [0; 6]).0, kill, "{arch:?}");
    }
    assert_eq!(run(&filter, 0xdead, 0, [0; 6]).0, kill);
}

#[test]
fn a_name_that_is_forbidden_must_be_known() {
    let rule = |action| Rule { names: vec!["no_such_call".into()], action, conditions: vec![] };
    let mut profile =
        Profile { default: Action::Allow, architectures: vec![], rules: vec![rule(Action::Errno(1))] };
    assert_eq!(compile(&profile), Err(CompileError::UnknownForbidden { name: "no_such_call".into() }));
    profile.default = Action::Errno(1);
    profile.rules = vec![rule(Action::Allow)];
    assert!(compile(&profile).is_ok());
}

#[test]
fn the_tables_are_sorted() {
    assert!(syscalls::SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(syscalls::X32_OWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(Arch::X32.number("execve"), Some(520 | X32_BIT));
    assert_eq!(Arch::X86.number("execve"), Some(11));
    assert_eq!(Arch::Aarch64.number("open"), None);
}
