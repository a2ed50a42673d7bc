//! Device rules on version 2, which has no devices controller: a small program of type BPF_PROG_TYPE_CGROUP_DEVICE on the cgroup.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{CgroupError, DeviceKind, DeviceRule};
use crate::error::CallError;

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE_IMMEDIATE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const JUMP_IF_NOT: u8 = 0x56;
const JUMP_IF_NOT_REGISTER: u8 = 0x5e;
const JUMP_IF: u8 = 0x16;
const EXIT: u8 = 0x95;

const fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: destination | source << 4, offset, immediate }
}

/// The context is `struct bpf_cgroup_dev_ctx`: access and type in one word, major, minor. Registers: 2 type, 3 access, 4 major, 5 minor.
/// The last rule that matches decides, so they are tried from the last.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut code = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(MOVE_REGISTER, 3, 2, 0, 0),
        insn(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        // Jumps of a test that does not hold lead past the rule; filled in below.
        let mut tests: Vec<Insn> = Vec::new();
        match rule.kind {
            DeviceKind::All => {}
            DeviceKind::Block => tests.push(insn(JUMP_IF_NOT, 2, 0, -1, 1)),
            DeviceKind::Char => tests.push(insn(JUMP_IF_NOT, 2, 0, -1, 2)),
        }
        let access = i32::from(rule.mknod) | i32::from(rule.read) << 1 | i32::from(rule.write) << 2;
        if access != 7 && rule.kind != DeviceKind::All {
            tests.push(insn(MOVE_REGISTER, 1, 3, 0, 0));
            tests.push(insn(AND_IMMEDIATE, 1, 0, 0, access));
            // Allowed must be all that is asked for; denied is any of it.
            tests.push(if rule.allow {
                insn(JUMP_IF_NOT_REGISTER, 1, 3, -1, 0)
            } else {
                insn(JUMP_IF, 1, 0, -1, 0)
            });
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number.filter(|_| rule.kind != DeviceKind::All) {
                tests.push(insn(JUMP_IF_NOT, register, 0, -1, number as i32));
            }
        }
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if test.offset == -1 {
                // Past the remaining tests and the two instructions of the answer; rules have at most six tests.
                test.offset = (length - at - 1) as i16 + 2;
            }
        }
        code.extend(tests);
        code.push(insn(MOVE_IMMEDIATE, 0, 0, 0, i32::from(rule.allow)));
        code.push(insn(EXIT, 0, 0, 0, 0));
        if length == 0 {
            // It matches everything. The kernel refuses a program with instructions that are never reached.
            return code;
        }
    }
    code.push(insn(MOVE_IMMEDIATE, 0, 0, 0, 0));
    code.push(insn(EXIT, 0, 0, 0, 0));
    code
}

/// Loads the rules' program and attaches it: everything in the cgroup is under it, besides those of the cgroups above.
pub(super) fn attach(cgroup: &OwnedFd, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let code = program(rules);
    let load = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `load` is the beginning of bpf_attr for BPF_PROG_LOAD (the rest counts as zero); the instructions and the license
    // outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    let Some(fd) = i32::try_from(fd).ok().filter(|fd| *fd >= 0) else {
        return Err(CallError::last("bpf", "BPF_PROG_LOAD cgroup device rules").into());
    };
    // SAFETY: the call succeeded: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attach` is the beginning of bpf_attr for BPF_PROG_ATTACH and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result == 0 {
        Ok(())
    } else {
        Err(CallError::last("bpf", "BPF_PROG_ATTACH cgroup device rules").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs the program on one access: registers only, as the verifier demands.
    fn run(code: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 6];
        let mut pc = 0_usize;
        loop {
            let at = code[pc];
            pc += 1;
            let (to, from) = ((at.registers & 15) as usize, (at.registers >> 4) as usize);
            let jump = |holds: bool| if holds { at.offset as usize } else { 0 };
            match at.code {
                LOAD_WORD => registers[to] = context[at.offset as usize / 4],
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = at.immediate as u32,
                AND_IMMEDIATE => registers[to] &= at.immediate as u32,
                SHIFT_RIGHT => registers[to] >>= at.immediate as u32,
                JUMP_IF_NOT => pc += jump(registers[to] != at.immediate as u32),
                JUMP_IF => pc += jump(registers[to] == at.immediate as u32),
                JUMP_IF_NOT_REGISTER => pc += jump(registers[to] != registers[from]),
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn naive(rules: &[DeviceRule], block: bool, access: u32, major: u32, minor: u32) -> bool {
        let mut allowed = false;
        for rule in rules {
            let bits = u32::from(rule.mknod) | u32::from(rule.read) << 1 | u32::from(rule.write) << 2;
            let matches = rule.kind == DeviceKind::All
                || (rule.kind == if block { DeviceKind::Block } else { DeviceKind::Char }
                    && rule.major.is_none_or(|m| m == major)
                    && rule.minor.is_none_or(|m| m == minor)
                    && if rule.allow { access & bits == access } else { access & bits != 0 });
            if matches {
                allowed = rule.allow;
            }
        }
        allowed
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![Just(DeviceKind::Char), Just(DeviceKind::Block), Just(DeviceKind::All)];
        (any::<bool>(), kind, prop::option::of(0_u32..3), prop::option::of(0_u32..3), any::<[bool; 3]>())
            .prop_map(|(allow, kind, major, minor, [read, write, mknod])| DeviceRule {
                allow,
                kind,
                major,
                minor,
                read,
                write,
                mknod,
            })
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_read(
            rules in prop::collection::vec(rule(), 0..6),
            block in any::<bool>(), access in 1_u32..8, major in 0_u32..3, minor in 0_u32..3,
        ) {
            let seen = run(&program(&rules), if block { 1 } else { 2 }, access, major, minor);
            prop_assert_eq!(seen, naive(&rules, block, access, major, minor));
        }
    }
}
