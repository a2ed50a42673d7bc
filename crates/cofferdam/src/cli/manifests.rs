//! Manifests: files, directories and standard input → the objects in them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::remote::{Remote, Resource};

/// No manifest is larger than what the server takes in one request; several may stand in one file.
const MOST_BYTES: u64 = 64 << 20;

/// One object and the file it came from.
#[derive(Debug)]
pub struct Manifest {
    pub object: Value,
    /// As kubectl prints it: the path, or STDIN.
    pub source: String,
}

impl Manifest {
    fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// The resource, the namespace ("" for what has none) and the name that the manifest is about. `given` is
    /// `--namespace`.
    pub fn target<'a>(
        &self,
        remote: &'a Remote,
        given: Option<&str>,
    ) -> Result<(&'a Resource, String, String)> {
        let (api_version, kind) = (self.text("/apiVersion"), self.text("/kind"));
        let source = &self.source;
        if kind.is_empty() {
            bail!("error: error validating {source:?}: error validating data: kind not set");
        }
        if api_version.is_empty() {
            bail!("error: error validating {source:?}: error validating data: apiVersion not set");
        }
        let name = self.text("/metadata/name").to_owned();
        let Some(resource) = remote.of_manifest(api_version, kind) else {
            bail!(
                "error: resource mapping not found for name: {name:?} namespace: {:?} from {source:?}: no matches for kind \
                 {kind:?} in version {api_version:?}\nensure CRDs are installed first",
                self.text("/metadata/namespace")
            );
        };
        let own = self.text("/metadata/namespace");
        if !resource.namespaced {
            return Ok((resource, String::new(), name));
        }
        if let Some(given) = given
            && !own.is_empty()
            && own != given
        {
            bail!(
                "error: the namespace from the provided object {own:?} does not match the namespace {given:?}. You must \
                 pass '--namespace={own}' to perform this operation."
            );
        }
        let namespace = if own.is_empty() { remote.namespace(given).to_owned() } else { own.to_owned() };
        Ok((resource, namespace, name))
    }
}

/// All objects of all `names`, in order; Lists are taken apart. Directories give their .json, .yaml and .yml files,
/// those below too where `recursive`.
pub fn read_all(names: &[String], recursive: bool) -> Result<Vec<Manifest>> {
    let mut out = Vec::new();
    for (source, bytes) in read_files(names, recursive)? {
        out.extend(parse(&bytes, &source)?);
    }
    Ok(out)
}

/// The texts of all `names`, each with the name that is shown of it.
pub fn read_texts(names: &[String], recursive: bool) -> Result<Vec<(String, String)>> {
    let files = read_files(names, recursive)?.into_iter().map(|(source, bytes)| {
        let text = String::from_utf8(bytes).with_context(|| format!("error: {source} is not UTF-8"))?;
        Ok((source, text))
    });
    files.collect()
}

fn read_files(names: &[String], recursive: bool) -> Result<Vec<(String, Vec<u8>)>> {
    let mut out = Vec::new();
    for name in names {
        if name == "-" {
            out.push(("STDIN".to_owned(), read(std::io::stdin().lock(), "STDIN")?));
            continue;
        }
        let mut files = Vec::new();
        match find(Path::new(name), recursive, true, &mut files) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("error: the path {name:?} does not exist")
            }
            found => found.with_context(|| format!("error: the path {name:?} cannot be accessed"))?,
        }
        for path in files {
            let shown = path.display().to_string();
            let file = std::fs::File::open(&path).with_context(|| format!("error: open {shown:?}"))?;
            let bytes = read(file, &shown)?;
            out.push((shown, bytes));
        }
    }
    Ok(out)
}

fn find(path: &Path, recursive: bool, named: bool, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !std::fs::metadata(path)?.is_dir() {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if named || ["json", "yaml", "yml"].contains(&extension) {
            out.push(path.to_owned());
        }
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        if recursive || !entry.is_dir() {
            find(&entry, recursive, false, out)?;
        }
    }
    Ok(())
}

fn read(from: impl Read, source: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("error: read {source}"))?;
    if bytes.len() as u64 > MOST_BYTES {
        bail!("error: {source} is larger than {} MiB", MOST_BYTES >> 20);
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], source: &str) -> Result<Vec<Manifest>> {
    let documents = api::json::parse_yaml_documents(bytes, api::json::Limits::default())
        .map_err(|e| anyhow::anyhow!("error: error parsing {source}: {e}"))?;
    let mut out = Vec::new();
    for document in documents {
        flatten(document.value, source, &mut out)?;
    }
    Ok(out)
}

fn flatten(object: Value, source: &str, out: &mut Vec<Manifest>) -> Result<()> {
    match object {
        Value::Null => Ok(()),
        Value::Object(mut map) => {
            let kind = map.get("kind").and_then(Value::as_str).unwrap_or("");
            let is_list = kind.ends_with("List") && map.get("items").is_some_and(Value::is_array);
            if !is_list {
                out.push(Manifest { object: Value::Object(map), source: source.to_owned() });
                return Ok(());
            }
            match map.remove("items") {
                Some(Value::Array(items)) => {
                    items.into_iter().try_for_each(|item| flatten(item, source, out))
                }
                _ => Ok(()),
            }
        }
        other => bail!("error: {source}: {other} is not an object with apiVersion and kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects(text: &str) -> Vec<Value> {
        parse(text.as_bytes(), "test").expect("YAML").into_iter().map(|m| m.object).collect()
    }

    #[test]
    fn documents_and_lists_become_objects() {
        assert_eq!(objects("a: 1\n---\n\n---\nb: 2\n"), [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(
            objects("kind: List\nitems:\n- {a: 1}\n- kind: PodList\n  items: [{b: 2}]\n"),
            [json!({"a": 1}), json!({"b": 2})]
        );
        assert_eq!(objects("{\"a\": {\"b\": [1, \"x\"]}}"), [json!({"a": {"b": [1, "x"]}})]);
        assert_eq!(objects("# nothing\n"), Vec::<Value>::new());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in ["a: [", "just words", "- 1\n- 2", "a: &a [*a]"] {
            assert!(parse(text.as_bytes(), "test").is_err(), "{text:?}");
        }
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for i in 1..40 {
            bomb.push_str(&format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1));
        }
        assert!(parse(bomb.as_bytes(), "test").is_err(), "a YAML bomb");
    }

    #[test]
    fn a_directory_gives_its_manifests_in_order() {
        let dir = std::env::temp_dir().join(format!("cofferdam-manifests-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("below")).expect("make a directory");
        for (name, text) in
            [("b.yaml", "n: b"), ("a.yml", "n: a"), ("c.txt", "n: c"), ("below/d.json", "{\"n\":\"d\"}")]
        {
            std::fs::write(dir.join(name), text).expect("write a file");
        }
        let names = |recursive| -> Vec<String> {
            let all = read_all(&[dir.display().to_string()], recursive).expect("read");
            all.iter().map(|m| m.object["n"].as_str().unwrap_or("").to_owned()).collect()
        };
        assert_eq!(names(false), ["a", "b"]);
        assert_eq!(names(true), ["a", "b", "d"]);
        std::fs::remove_dir_all(&dir).expect("remove");
        assert!(read_all(&["/does/not/exist".into()], false).is_err());
    }
}
