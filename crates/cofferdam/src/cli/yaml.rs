//! Objects as YAML, written as kubectl writes them: YAML 1.1 readers must take every string for a string, so a text that
//! looks like a number, a time or a yes is quoted; texts of several lines are blocks.

use std::fmt::Write as _;

use serde_json::Value;

/// One document, ending in a newline.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => sequence(&mut out, list, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, level: usize) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, level: usize) {
    for (i, (key, value)) in map.iter().enumerate() {
        // The first key of an element stands behind its dash.
        if i > 0 || !out.ends_with("- ") {
            indent(out, level);
        }
        text(out, key, level, true);
        out.push(':');
        match value {
            Value::Object(below) if !below.is_empty() => {
                out.push('\n');
                mapping(out, below, level + 1);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                // Lists are not indented below their key.
                sequence(out, list, level);
            }
            other => {
                out.push(' ');
                scalar(out, other, level + 1);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, list: &[Value], level: usize) {
    for (i, item) in list.iter().enumerate() {
        if i > 0 || !out.ends_with("- ") {
            indent(out, level);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, level + 1),
            Value::Array(list) if !list.is_empty() => sequence(out, list, level + 1),
            other => {
                scalar(out, other, level + 1);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value, level: usize) {
    match value {
        Value::String(string) => text(out, string, level, false),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Plain where nothing can be mistaken; a block for lines; single quotes for signs; double quotes for the rest.
fn text(out: &mut String, string: &str, level: usize, key: bool) {
    let odd = string.chars().any(|c| c.is_control() && c != '\n') || string.contains('\u{feff}');
    if string.is_empty() || odd || is_something_else(string) {
        double_quoted(out, string);
    } else if string.contains('\n') {
        let block = !key && !string.starts_with([' ', '\n']) && string.lines().all(|l| l.trim_end() == l);
        if block { literal(out, string, level) } else { double_quoted(out, string) }
    } else if is_plain(string) {
        out.push_str(string);
    } else {
        let _ = write!(out, "'{}'", string.replace('\'', "''"));
    }
}

fn double_quoted(out: &mut String, string: &str) {
    // JSON's escapes are YAML's too.
    let _ = write!(out, "{}", Value::String(string.to_owned()));
}

fn literal(out: &mut String, string: &str, level: usize) {
    let ends = string.len() - string.trim_end_matches('\n').len();
    out.push_str(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let body = string.strip_suffix('\n').unwrap_or(string);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, level);
            out.push_str(line);
        }
    }
}

/// Whether a YAML 1.1 reader would take the plain text for something that is no string.
fn is_something_else(string: &str) -> bool {
    const WORDS: [&str; 13] =
        ["~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "<<"];
    let lower = string.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) || ["+.inf", "-.inf"].contains(&lower.as_str()) {
        return true;
    }
    let first = string.as_bytes()[0];
    if !(first.is_ascii_digit() || b"+-.".contains(&first)) {
        return false;
    }
    let digits = lower.trim_start_matches(['+', '-']).replace('_', "");
    let number = !digits.is_empty()
        && (digits.parse::<f64>().is_ok()
            || ["0x", "0o", "0b"].iter().any(|p| {
                digits
                    .strip_prefix(p)
                    .is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))
            }));
    // `2026-01-01`, with or without a time; `1:30` counts in sixties.
    let date = string.len() >= 8
        && string.bytes().take(4).all(|b| b.is_ascii_digit())
        && string.as_bytes()[4] == b'-'
        && string.bytes().all(|b| b.is_ascii_digit() || b"-:.TtZz +".contains(&b));
    let sixties = string.contains(':') && string.bytes().all(|b| b.is_ascii_digit() || b":.+-_".contains(&b));
    number || date || sixties
}

fn is_plain(string: &str) -> bool {
    let bytes = string.as_bytes();
    let first = bytes[0];
    let sign = b"-?:,[]{}#&*!|>'\"%@`".contains(&first);
    // A dash, question mark or colon may begin a text when no blank follows.
    let may_begin = !sign || (b"-?:".contains(&first) && bytes.len() > 1 && !bytes[1].is_ascii_whitespace());
    may_begin
        && !string.starts_with(' ')
        && !string.ends_with([' ', ':'])
        && !string.contains(": ")
        && !string.contains(" #")
        && !string.starts_with("---")
        && !string.starts_with("...")
        && !string.starts_with("=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_reads_as_kubectl_writes_it() {
        let object = json!({
            "apiVersion": "v1", "count": 3, "on": true, "none": null, "empty": {}, "nothing": [],
            "metadata": {"annotations": {"last": "{\"a\":1}\n"}, "creationTimestamp": "2026-11-23T21:44:50Z", "resourceVersion": "4"},
            "spec": {"list": [{"name": "a", "args": ["-c", "x: y"]}, {"name": "b"}], "script": "a\n\n  b"}
        });
        assert_eq!(
            to_string(&object),
            "apiVersion: v1\ncount: 3\nempty: {}\nmetadata:\n  annotations:\n    last: |\n      {\"a\":1}\n  \
             creationTimestamp: \"2026-11-23T21:44:50Z\"\n  resourceVersion: \"4\"\nnone: null\nnothing: []\n\"on\": true\n\
             spec:\n  list:\n  - args:\n    - -c\n    - 'x: y'\n    name: a\n  - name: b\n  script: |-\n    a\n\n      b\n"
        );
    }

    #[test]
    fn every_text_reads_back_as_itself() {
        let texts = [
            "",
            " ",
            "a",
            "1",
            "-1",
            "1.5",
            "1e3",
            "0x1f",
            "0o17",
            "yes",
            "No",
            "ON",
            "y",
            "null",
            "~",
            "true",
            ".inf",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "1:30",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "- a",
            "-a",
            "--flag",
            "*",
            "&a",
            "!x",
            "|",
            ">",
            "'q'",
            "\"q\"",
            "%",
            "@x",
            "`x`",
            "{a}",
            "[a]",
            "a, b",
            "a\nb",
            "a\nb\n",
            "a\n\n",
            "\na",
            " a\nb",
            "a \nb",
            "a\tb",
            "é",
            "\u{1b}[2J",
            "---",
            "...",
            "?",
            "? a",
            "=",
            "<<",
            "key: |",
            "a\\b",
            "0",
            "00",
            "1_000",
            "+1",
            "sha256:abc",
            "10.0.0.1",
            "10.0.0.0/8",
            "1Gi",
        ];
        for text in texts {
            for object in [json!({"k": text}), json!([text]), json!({"a": [{"b": text}]}), json!({text: 1})] {
                let written = to_string(&object);
                let read: Value =
                    serde_yaml::from_str(&written).unwrap_or_else(|e| panic!("{text:?}: {e}\n{written}"));
                assert_eq!(read, object, "{text:?}\n{written}");
            }
        }
    }
}
