//! Development tasks: `cargo xtask` lists them.

mod bench;
mod codegen;
mod soak;
mod tidy;

use std::process::ExitCode;

struct Task {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

const TASKS: &[Task] = &[
    Task {
        name: "codegen",
        about: "write crates/api/src/schema/generated.rs: --openapi PATH --protobuf-crate PATH [--check]",
        run: codegen::run,
    },
    Task {
        name: "tidy",
        about: "check the invariants and the style that a program can check",
        run: tidy::run,
    },
    Task {
        name: "bench",
        about: "run the benchmarks in release, side by side with what they are compared with: [NAME…]",
        run: bench::run,
    },
    Task {
        name: "soak",
        about: "the network under random change, every connection judged: [--minutes N] [--seed N]",
        run: soak::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = args.first() else {
        println!("cargo xtask TASK\n");
        for task in TASKS {
            println!("  {:<10} {}", task.name, task.about);
        }
        return ExitCode::SUCCESS;
    };
    let Some(task) = TASKS.iter().find(|t| t.name == *name) else {
        eprintln!("xtask: no task {name}; run `cargo xtask` for the list");
        return ExitCode::FAILURE;
    };
    match (task.run)(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
