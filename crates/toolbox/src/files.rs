//! Files: enough of the everyday commands to see who may read and write what.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::{Failure, Outcome, failed, say};

pub fn cat(args: &[String]) -> Outcome {
    if args.is_empty() {
        io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).map_err(failed("copy stdin"))?;
    }
    for name in args {
        let mut file = fs::File::open(name).map_err(failed(name))?;
        io::copy(&mut file, &mut io::stdout().lock()).map_err(failed(name))?;
    }
    io::stdout().flush().map_err(failed("write to stdout"))?;
    Ok(0)
}

pub fn stat(args: &[String]) -> Outcome {
    let [name] = args else { return Err(Failure::Usage("a path, please")) };
    let metadata = fs::symlink_metadata(name).map_err(failed(name))?;
    let mode = metadata.permissions().mode() & 0o7777;
    say(&format!("uid {} gid {} mode {mode:o}", metadata.uid(), metadata.gid())).map(|()| 0)
}

pub fn chmod(args: &[String]) -> Outcome {
    let [mode, names @ ..] = args else { return Err(Failure::Usage("a mode and files, please")) };
    let mode = u32::from_str_radix(mode, 8).map_err(|_| Failure::Usage("the mode as octal digits"))?;
    for name in names {
        fs::set_permissions(name, fs::Permissions::from_mode(mode)).map_err(failed(name))?;
    }
    Ok(0)
}

pub fn echo(args: &[String]) -> Outcome {
    say(&args.join(" ")).map(|()| 0)
}

pub fn write(args: &[String]) -> Outcome {
    let [name, words @ ..] = args else { return Err(Failure::Usage("a file and a text, please")) };
    let text = format!("{}\n", words.join(" "));
    fs::write(name, text).map_err(failed(name)).map(|()| 0)
}

pub fn mkdir(args: &[String]) -> Outcome {
    for name in args {
        fs::create_dir(name).map_err(failed(name))?;
    }
    Ok(0)
}

pub fn rm(args: &[String]) -> Outcome {
    for name in args {
        fs::remove_file(name).map_err(failed(name))?;
    }
    Ok(0)
}

pub fn ls(args: &[String]) -> Outcome {
    let here = [".".to_owned()];
    for name in if args.is_empty() { &here } else { args } {
        let path = Path::new(name);
        if !fs::symlink_metadata(path).map_err(failed(name))?.is_dir() {
            line(path, name)?;
            continue;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed(name))? {
            names.push(entry.map_err(failed(name))?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for entry in names {
            line(&path.join(&entry), &entry)?;
        }
    }
    Ok(0)
}

fn line(path: &Path, name: &str) -> Result<(), Failure> {
    let meta = fs::symlink_metadata(path).map_err(failed(name))?;
    let kind = match meta.file_type() {
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        kind if kind.is_file() => '-',
        _ => '?',
    };
    let target = fs::read_link(path).map(|target| format!(" -> {}", target.display())).unwrap_or_default();
    let mode = meta.permissions().mode() & 0o7777;
    say(&format!("{kind}{mode:04o} {} {} {} {name}{target}", meta.uid(), meta.gid(), meta.len()))
}
