//! From a profile to instructions: per architecture a sorted list of numbers with their decision, neighbours with the same decision
//! merged to ranges, and a binary search over those.

use std::collections::BTreeMap;

use super::{
    Action, Arch, Compare, CompileError, Condition, Filter, Instruction, Profile, X32_BIT, is_known,
};

const LD_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// BPF_MAXINSNS.
const MAX: usize = 4096;

/// What is done with one system call.
#[derive(Clone, PartialEq, Eq)]
struct Decision {
    /// Tried in order.
    alternatives: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Decision {
    fn always(action: Action) -> Self {
        Self { alternatives: Vec::new(), otherwise: action }
    }
}

/// Compiles a profile.
///
/// # Errors
/// See [`CompileError`]. A name no architecture knows is left to the default action, unless that is the laxer one.
pub fn compile(profile: &Profile) -> Result<Filter, CompileError> {
    for rule in &profile.rules {
        for name in &rule.names {
            if let Some(condition) = rule.conditions.iter().find(|condition| condition.index > 5) {
                return Err(CompileError::ArgumentIndex { name: name.clone(), index: condition.index });
            }
            let lax = matches!(profile.default, Action::Allow | Action::Log);
            if lax && !matches!(rule.action, Action::Allow | Action::Log) && !is_known(name) {
                return Err(CompileError::UnknownForbidden { name: name.clone() });
            }
        }
    }
    let has = |arch| arch == Arch::native() || profile.architectures.contains(&arch);
    let mut program = vec![statement(LD_ABS, ARCH)];
    for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64] {
        let entered = has(arch) || arch == Arch::X86_64 && has(Arch::X32);
        if !entered {
            continue;
        }
        let mut section = vec![statement(LD_ABS, NR)];
        if arch == Arch::X86_64 {
            let native = if has(Arch::X86_64) { search(&ranges(profile, arch)) } else { kill() };
            let x32 = if has(Arch::X32) { search(&ranges(profile, Arch::X32)) } else { kill() };
            section.extend(branch(X32_BIT, native, x32));
        } else {
            section.extend(search(&ranges(profile, arch)));
        }
        // Not this architecture: over the section to the next test.
        program.push(jump(JEQ, arch.audit(), 1, 0));
        program.push(statement(JA, section.len() as u32));
        program.extend(section);
    }
    program.extend(kill());
    if program.len() > MAX {
        return Err(CompileError::TooLong(program.len()));
    }
    Ok(Filter { program })
}

fn kill() -> Vec<Instruction> {
    vec![statement(RET, Action::KillProcess.value())]
}

const fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The decisions of one architecture as ranges: each holds from its number up to the next one's.
fn ranges(profile: &Profile, arch: Arch) -> Vec<(u32, Decision)> {
    let mut calls: BTreeMap<u32, Decision> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| arch.number(name)) {
            let decision = calls.entry(number).or_insert_with(|| Decision::always(profile.default));
            // An earlier rule without conditions has decided already.
            if decision.alternatives.last().is_none_or(|(conditions, _)| !conditions.is_empty()) {
                let repeated = rule.conditions.iter().enumerate().any(|(at, condition)| {
                    rule.conditions[..at].iter().any(|earlier| earlier.index == condition.index)
                });
                if repeated {
                    let single = rule.conditions.iter().map(|condition| (vec![*condition], rule.action));
                    decision.alternatives.extend(single);
                } else {
                    decision.alternatives.push((rule.conditions.clone(), rule.action));
                }
            }
        }
    }
    let mut ranges = vec![(0, Decision::always(profile.default))];
    let mut next = 0;
    for (number, mut decision) in calls {
        if let Some((_, action)) = decision.alternatives.pop_if(|(conditions, _)| conditions.is_empty()) {
            decision.otherwise = action;
        }
        // What decides nothing else than what follows anyway is no alternative.
        while decision.alternatives.last().is_some_and(|(_, action)| *action == decision.otherwise) {
            decision.alternatives.pop();
        }
        if number > next {
            ranges.push((next, Decision::always(profile.default)));
        }
        ranges.push((number, decision));
        next = number + 1;
    }
    ranges.push((next, Decision::always(profile.default)));
    // The later of two that begin at the same number counts.
    ranges.reverse();
    ranges.dedup_by_key(|(from, _)| *from);
    ranges.reverse();
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

/// Binary search over ranges with the number in the accumulator. Every path returns.
fn search(ranges: &[(u32, Decision)]) -> Vec<Instruction> {
    if let [(_, decision)] = ranges {
        return decide(decision);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    branch(right[0].0, search(left), search(right))
}

/// `right` where the accumulator is at least `from`, else `left`; both must return.
fn branch(from: u32, left: Vec<Instruction>, right: Vec<Instruction>) -> Vec<Instruction> {
    let mut code = match u8::try_from(left.len()) {
        Ok(over) => vec![jump(JGE, from, over, 0)],
        Err(_) => vec![jump(JGE, from, 0, 1), statement(JA, left.len() as u32)],
    };
    code.extend(left);
    code.extend(right);
    code
}

fn decide(decision: &Decision) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (conditions, action) in &decision.alternatives {
        let mut test: Vec<Test> = conditions.iter().flat_map(condition).collect();
        test.push(Test::Do(statement(RET, action.value())));
        let length = test.len();
        for (at, step) in test.into_iter().enumerate() {
            // At most 6 conditions of 6 instructions: distances fit a byte.
            let fail = (length - at - 1) as u8;
            code.push(match step {
                Test::Do(instruction) => instruction,
                Test::Jump { code, k, yes, no } => jump(code, k, yes.distance(fail), no.distance(fail)),
            });
        }
    }
    code.push(statement(RET, decision.otherwise.value()));
    code
}

enum Test {
    Do(Instruction),
    Jump { code: u16, k: u32, yes: To, no: To },
}

#[derive(Clone, Copy)]
enum To {
    /// So many instructions further.
    Over(u8),
    /// The condition does not hold: past the whole alternative.
    Fail,
}

impl To {
    fn distance(self, fail: u8) -> u8 {
        match self {
            Self::Over(count) => count,
            Self::Fail => fail,
        }
    }
}

/// Falls through where the condition holds. The high halves decide first; both architectures are little endian.
fn condition(condition: &Condition) -> Vec<Test> {
    let high = |value: u64| (value >> 32) as u32;
    let low = |value: u64| value as u32;
    let at = ARGS + 8 * u32::from(condition.index);
    let value = condition.value;
    let load_low = || Test::Do(statement(LD_ABS, at));
    let load_high = || Test::Do(statement(LD_ABS, at + 4));
    let test = |code, k, yes, no| Test::Jump { code, k, yes, no };
    let (next, fail) = (To::Over(0), To::Fail);
    match condition.compare {
        Compare::Equal => vec![
            load_high(),
            test(JEQ, high(value), next, fail),
            load_low(),
            test(JEQ, low(value), next, fail),
        ],
        Compare::NotEqual => vec![
            load_high(),
            test(JEQ, high(value), next, To::Over(2)),
            load_low(),
            test(JEQ, low(value), fail, next),
        ],
        Compare::MaskedEqual => vec![
            load_high(),
            Test::Do(statement(AND, high(value))),
            test(JEQ, high(condition.value_two & value), next, fail),
            load_low(),
            Test::Do(statement(AND, low(value))),
            test(JEQ, low(condition.value_two & value), next, fail),
        ],
        Compare::Greater | Compare::GreaterOrEqual => vec![
            load_high(),
            test(JGT, high(value), To::Over(3), next),
            test(JEQ, high(value), next, fail),
            load_low(),
            test(if condition.compare == Compare::Greater { JGT } else { JGE }, low(value), next, fail),
        ],
        Compare::Less | Compare::LessOrEqual => vec![
            load_high(),
            test(JGT, high(value), fail, next),
            test(JEQ, high(value), next, To::Over(2)),
            load_low(),
            test(if condition.compare == Compare::Less { JGE } else { JGT }, low(value), fail, next),
        ],
    }
}
