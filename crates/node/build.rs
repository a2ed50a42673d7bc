//! Builds the static programs that the node carries along: the keeper, which an agent runs from a sealed memfd, and the
//! toolbox and the name server, which are the content of images. They are static because they run where no library can
//! be trusted: the keeper next to a container's files, the others in images of their own.

use std::{env, path::PathBuf, process::Command};

/// What must not leak from the outer cargo into the inner one: its flags are for dynamic programs and for clippy.
const OUTER: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_UNSTABLE_TARGET_APPLIES_TO_HOST",
    "CLIPPY_ARGS",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
];

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    let target = variable("TARGET");
    for path in ["Cargo.toml", "Cargo.lock", "crates/dns", "crates/keeper", "crates/kernel", "crates/toolbox"]
    {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let directory = out.join("static");
    let mut cargo = Command::new(variable("CARGO"));
    for name in OUTER {
        cargo.env_remove(name);
    }
    // Flags by target, because flags for all would be for build scripts and macros too, which cannot be static.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let status = cargo
        .current_dir(&workspace)
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            "dns",
            "--package",
            "keeper",
            "--package",
            "toolbox",
            "--bins",
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .env(flags, "-C target-feature=+crt-static -C relocation-model=static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .status()
        .unwrap_or_else(|error| panic!("run cargo for the static programs: {error}"));
    assert!(status.success(), "building the static programs failed: {status}");
    for (name, file) in [("DNS", "cofferdam-dns"), ("KEEPER", "keeper"), ("TOOLBOX", "toolbox")] {
        let program = directory.join(&target).join("release").join(file);
        println!("cargo::rustc-env={name}_PROGRAM={}", program.display());
        if name == "DNS" {
            // Another program is another image: its tag says so, and a cluster takes the new one.
            let bytes =
                std::fs::read(&program).unwrap_or_else(|error| panic!("read {}: {error}", program.display()));
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hasher::write(&mut hasher, &bytes);
            println!("cargo::rustc-env=DNS_TAG={:016x}", std::hash::Hasher::finish(&hasher));
        }
    }
}
