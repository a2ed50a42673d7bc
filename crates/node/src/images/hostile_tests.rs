//! What images may not do: layers that lead out of the image, bombs, damaged archives. Each is a clear error, and nothing
//! of it stays.

use std::{io::Write, path::Path};

use ::tar::EntryType;
use serde_json::json;
use testkit::images::{Image as Made, Layer};

use super::{tar::TarError, tests::fixture, unpack::Limits};

#[test]
fn bad_layers_are_refused_by_name_and_leave_nothing() {
    let Some(fixture) = fixture("images: bad layers") else { return };
    let file = |name: &str| Layer::new().file(name, 0o644, "x");
    let cases: Vec<(&str, Layer, &str)> = vec![
        ("parent", file("../evil"), "\"../evil\": the path leads out of the image"),
        ("parent inside", file("a/../../evil"), "\"a/../../evil\": the path leads out of the image"),
        ("parent directory", Layer::new().dir("..", 0o755), "\"..\": the path leads out of the image"),
        ("whiteout of the parent", file("a/.wh..."), "leads out of the image"),
        ("whiteout of nothing", file("a/.wh."), "leads out of the image"),
        (
            "through an absolute link",
            Layer::new().symlink("etc", "/etc").file("etc/evil", 0o644, "x"),
            "\"etc/evil\": the path passes through a symbolic link of the same layer",
        ),
        (
            "through a link up",
            Layer::new().symlink("up", "../..").file("up/tmp/evil", 0o644, "x"),
            "\"up/tmp/evil\": the path passes through a symbolic link",
        ),
        (
            "whiteout through a link",
            Layer::new().symlink("etc", "/etc").file("etc/.wh.passwd", 0o644, ""),
            "passes through a symbolic link",
        ),
        (
            "absolute hard link",
            Layer::new().hard_link("shadow", "/etc/shadow"),
            "\"shadow\": hard link to the absolute path \"/etc/shadow\"",
        ),
        (
            "hard link up",
            Layer::new().hard_link("shadow", "../../etc/shadow"),
            "\"../../etc/shadow\": the path leads out",
        ),
        (
            "hard link through a link",
            Layer::new().symlink("etc", "/etc").hard_link("shadow", "etc/shadow"),
            "passes through a symbolic link",
        ),
        (
            "hard link to nothing",
            Layer::new().hard_link("a", "b"),
            "\"a\": hard link to \"b\", which is in no layer",
        ),
        (
            "character device",
            Layer::new().entry("dev/mem", EntryType::Char, 0o666, "", b""),
            "\"dev/mem\": device nodes in images are not accepted",
        ),
        (
            "block device",
            Layer::new().entry("sda", EntryType::Block, 0o666, "", b""),
            "\"sda\": device nodes in images are not accepted",
        ),
        (
            "sparse",
            Layer::new().entry("s", EntryType::GNUSparse, 0o644, "", b""),
            "\"s\": sparse files in the GNU format",
        ),
        (
            "pax sparse",
            Layer::new().pax(&[("GNU.sparse.major", b"1")]).file("s", 0o644, ""),
            "\"s\": sparse files in the pax format",
        ),
        (
            "unknown type",
            Layer::new().entry("v", EntryType::new(b'V'), 0o644, "", b""),
            "\"v\": entries of type 'V'",
        ),
        (
            "overlayfs' own attribute",
            Layer::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).file("a", 0o644, ""),
            "\"a\": extended attribute \"trusted.overlay.redirect\" is not accepted",
        ),
        (
            "owner out of range",
            Layer::new().pax(&[("uid", b"4294967295")]).file("a", 0o644, ""),
            "\"a\": owner 4294967295 is out of range",
        ),
        (
            "owner that wraps around",
            Layer::new().pax(&[("gid", b"4294967296")]).file("a", 0o644, ""),
            "\"a\": owner 4294967296 is out of range",
        ),
        (
            "pax record of wrong length",
            Layer::new().entry("p", EntryType::XHeader, 0o644, "", b"99 a=b\n"),
            "malformed",
        ),
        ("pax path with NUL", Layer::new().pax(&[("path", b"a\0b")]).file("a", 0o644, ""), "malformed"),
        (
            "huge long name",
            Layer::new().entry("l", EntryType::GNULongName, 0o644, "", &[b'a'; 5000]),
            "a name in the archive is longer than 4096 bytes",
        ),
        (
            "file and directory",
            Layer::new().file("a", 0o644, "x").dir("a", 0o755),
            "\"a\": appears twice, once as a directory and once as something else",
        ),
    ];
    for (case, layer, expect) in cases {
        let error = fixture.layers([layer]).expect_err(case).to_string();
        assert!(error.contains(expect), "{case}: {error}");
        fixture.assert_empty(case);
    }
    assert!(!Path::new("/tmp/evil").exists());
    let error = fixture
        .layers([Layer::new().symlink("lib", "usr/lib"), Layer::new().file("lib/a", 0o644, "x")])
        .unwrap_err();
    assert!(
        error.to_string().contains("\"lib\": a file is below it, but a lower layer has a symbolic link"),
        "{error}"
    );
    fixture.assert_empty("below a link of a lower layer");
}

#[test]
fn bombs_are_stopped_by_size_and_by_count() {
    let Some(fixture) = fixture("images: bombs") else { return };
    let small = Limits { bytes: 64 << 10, entries: 100 };
    let store = fixture.store.clone().with_limits(small);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let bomb = Made::new("bomb", json!({})).layer(Layer::new().file("zeros", 0o644, vec![0; 1 << 20]));
    encoder.write_all(&bomb.layers[0]).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < 4096);
    let archive = Layer::new()
        .file("layer", 0o644, packed)
        .file("config", 0o644, bomb.config_json())
        .file("manifest.json", 0o644, r#"[{"Config":"config","RepoTags":["bomb"],"Layers":["layer"]}]"#)
        .finish();
    let error = store.load_reader(&archive[..]).unwrap_err();
    assert!(error.to_string().contains("larger than 65536 bytes"), "{error}");
    fixture.assert_empty("zeros");

    let many = (0..101).fold(Layer::new(), |layer, at| layer.dir(&format!("{at}"), 0o755));
    let store = fixture.store.clone().with_limits(Limits { bytes: 1 << 30, entries: 100 });
    let many = Made::new("many", json!({})).layer(many);
    let error = store.load_reader(&many.docker_archive()[..]).unwrap_err();
    assert!(error.to_string().contains("more than 100 entries"), "{error}");
    fixture.assert_empty("entries");

    // Headers that wait for their entry are kept in memory.
    let large = vec![b'x'; 600 << 10];
    let headers = Layer::new().pax(&[("comment", &large)]).pax(&[("comment", &large)]).file("a", 0o644, "x");
    let headers = Made::new("headers", json!({})).layer(headers);
    let error = fixture.store.load_reader(&headers.docker_archive()[..]).unwrap_err();
    assert!(error.to_string().contains("the extended headers of an entry"), "{error}");
    fixture.assert_empty("headers");
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    let Some(fixture) = fixture("images: damaged") else { return };
    let image = Made::new("app", json!({})).layer(Layer::new().file("a", 0o644, vec![b'x'; 5000]));
    let check = |case: &str, archive: &[u8], expect: &str| {
        let error = fixture.store.load_reader(archive).expect_err(case).to_string();
        assert!(error.contains(expect), "{case}: {error}");
        fixture.assert_empty(case);
    };
    let archive = |layer: &[u8], config: &[u8], manifest: &str| {
        Layer::new()
            .file("layer", 0o644, layer)
            .file("config", 0o644, config)
            .file("manifest.json", 0o644, manifest)
            .finish()
    };
    let manifest = r#"[{"Config":"config","RepoTags":["app"],"Layers":["layer"]}]"#;
    let config = image.config_json();
    let layer = &image.layers[0];
    check("no archive", b"hello", "");
    check(
        "an archive of something else",
        &Layer::new().file("a", 0o644, "").finish(),
        "neither a docker archive",
    );
    check("truncated archive", &image.docker_archive()[..3000], "ends in the middle of");
    check("truncated layer", &archive(&layer[..2000], &config, manifest), "ends in the middle of an entry");
    let mut changed = layer.clone();
    changed[600] = b'y';
    check("changed layer", &archive(&changed, &config, manifest), "its content has the digest sha256:");
    check(
        "missing layer",
        &archive(layer, &config, &manifest.replace("layer\"", "other\"")),
        "\"other\" is not in the archive",
    );
    check(
        "layer by a path up",
        &archive(layer, &config, &manifest.replace("\"layer\"", "\"../layer\"")),
        "leads out",
    );
    check(
        "too many layers",
        &archive(layer, &config, &manifest.replace("[\"layer\"]", "[\"layer\",\"layer\"]")),
        "1 diff ids, but the manifest has 2",
    );
    check("no name", &archive(layer, &config, &manifest.replace("[\"app\"]", "null")), "has no name");
    check("bad name", &archive(layer, &config, &manifest.replace("\"app\"", "\"App\"")), "must be lowercase");
    check("no JSON", &archive(layer, b"{", manifest), "the image's configuration");
    let other =
        String::from_utf8(config.clone()).unwrap().replace("amd64", "s390x").replace("arm64", "s390x");
    check("another machine's", &archive(layer, other.as_bytes(), manifest), "the image is for linux/s390x");
    let mut member = Layer::new().symlink("layer", "../../../etc/passwd").file("config", 0o644, &config);
    member = member.file("manifest.json", 0o644, manifest);
    check("member that links out", &member.finish(), "leads out");

    let mut layout = image.oci_layout("application/vnd.oci.image.layer.v1.tar", <[u8]>::to_vec);
    for (path, content) in &mut layout {
        if path.starts_with("blobs") && content.len() < 400 && content.starts_with(b"{") {
            content.push(b' ');
        }
    }
    let oci =
        layout.iter().fold(Layer::new(), |tar, (path, content)| tar.file(path, 0o644, content)).finish();
    check("a blob that is not its digest", &oci, "its content has the digest sha256:");
}

#[test]
fn a_tar_without_closing_blocks_is_whole_but_one_cut_in_a_name_is_not() {
    let whole = Layer::new().file("a", 0o644, "x").finish();
    let mut archive = super::tar::Archive::new(&whole[..1024]);
    assert_eq!(archive.next().unwrap().unwrap().name, Path::new("a"));
    assert!(archive.next().unwrap().is_none());
    let long = Layer::new().pax(&[("path", b"b")]).finish();
    let mut archive = super::tar::Archive::new(&long[..1024]);
    assert!(matches!(archive.next(), Err(TarError::Truncated(_))));
}

#[test]
fn no_byte_of_an_archive_makes_the_reader_panic() {
    let archive = Layer::new()
        .pax(&[("path", b"some/name"), ("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
        .file("short", 0o644, vec![b'x'; 700])
        .hard_link("link", "short")
        .owned("d", 0o755, (1, 2), None)
        .finish();
    let mut whole = 0;
    for at in 0..archive.len() {
        for change in [0x01, 0x10, 0x80, 0xff] {
            let mut changed = archive.clone();
            changed[at] ^= change;
            // Make the headers' checksums right again, so that it is not they that save the reader.
            for header in changed.chunks_exact_mut(512) {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = super::tar::Archive::new(&changed[..]);
            let end = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            };
            whole += usize::from(end.is_ok());
        }
    }
    assert!(whole > 0, "some bytes do not matter");
}
