//! The syntax of names, labels and keys, with apimachinery's sentences. Each function returns what is wrong, in
//! order; nothing where all is well. The patterns are matched by hand: no backtracking on hostile input.

/// What every sentence of this kind ends with. The double space before "or" is upstream's.
fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

fn too_long(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} bytes"))
}

fn is_lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, with `_` as `-` where `underscore`.
fn label_matches(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            is_lower_alnum(*first)
                && is_lower_alnum(*last)
                && bytes.iter().all(|b| is_lower_alnum(*b) || *b == b'-')
        }
        _ => false,
    }
}

fn subdomain_matches(text: &str) -> bool {
    text.split('.').all(label_matches)
}

pub fn dns_label(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 63).into_iter().collect();
    if !label_matches(text) {
        wrong.push(if subdomain_matches(text) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                 start and end with an alphanumeric character",
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 253).into_iter().collect();
    if !subdomain_matches(text) {
        wrong.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    wrong
}

/// `acme.io/foo`; the part that is wrong, and what is wrong with it.
pub fn domain_prefixed_path(text: &str) -> Vec<(&str, String)> {
    const PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let Some((host, path)) = text.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        return vec![(text, "must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned())];
    };
    let mut wrong: Vec<(&str, String)> =
        dns_subdomain(host).into_iter().map(|message| (host, message)).collect();
    if !path.chars().all(|c| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c)) {
        wrong.push((path, regex_error("Invalid path", PATH, &[])));
    }
    wrong
}

/// Search domains of a pod may have underscores.
pub fn dns_search(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 253).into_iter().collect();
    let matches = text.split('.').all(|label| {
        let label = label.strip_prefix('_').unwrap_or(label);
        label_matches(&label.replace('_', "-"))
    });
    if !matches {
        wrong.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    wrong
}

/// Names of Services.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 63).into_iter().collect();
    if !label_matches(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        wrong.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// Names that only must be a segment of a path (roles and bindings, kinds without a rule of their own).
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// Keys of labels, annotations, selectors; names of conditions, finalizers, extended resources.
pub fn qualified_name(text: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                           alphanumeric character";
    const PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let pattern = || regex_error(MESSAGE, PATTERN, &["MyName", "my.name", "123-abc"]);
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        ["", name] => {
            wrong.push("prefix part must be non-empty".to_owned());
            *name
        }
        [prefix, name] => {
            wrong.extend(dns_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern()
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if let Some(message) = too_long(name, 63) {
        wrong.push(format!("name part {message}"));
    }
    if !qualified_matches(name) {
        wrong.push(format!("name part {}", pattern()));
    }
    wrong
}

fn qualified_matches(name: &str) -> bool {
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        }
        _ => false,
    }
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 63).into_iter().collect();
    if !text.is_empty() && !qualified_matches(text) {
        wrong.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// Keys of ConfigMaps and Secrets: they become file names.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 253).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        wrong.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if text == "." || text == ".." {
        wrong.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// Any printable ASCII but `=` (RelaxedEnvironmentVariableValidation, on since 1.32).
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if text.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

/// IANA service names: names of container ports.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = too_long(text, 15).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| is_lower_alnum(b) || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

pub fn http_header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// Address and length of a CIDR; `None` where it is not one.
pub fn parse_cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

pub fn cidr(text: &str) -> Vec<String> {
    match parse_cidr(text) {
        Some(_) => Vec::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

/// `net.ipv4.ip_forward`, also with slashes.
pub fn is_sysctl(text: &str) -> bool {
    text.len() <= 253 && text.split(['.', '/']).all(|segment| label_matches(&segment.replace('_', "-")))
}

/// A name that something will be appended to may end in a dash.
pub fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let keep: String = rest.chars().take(rest.chars().count() - 1).collect();
            format!("{keep}a")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Vec::<String>::new(), "{text:?}");
        }
        for text in bad {
            assert!(!rule(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn each_syntax_takes_and_refuses() {
        let long = "a".repeat(64);
        check(dns_label, &["a", "0", "a-b", "123-abc"], &["", "-a", "a-", "A", "a.b", "a_b", "é", &long]);
        check(
            dns_subdomain,
            &["a", "a.b", "1.2", "a-b.c-d"],
            &["", ".", "a.", ".a", "a..b", "A", "a_b", &"a.".repeat(127)],
        );
        check(dns_1035_label, &["a", "a1"], &["", "1a", "a.b", "-"]);
        check(
            qualified_name,
            &["a", "A.b_c-d", "example.com/x"],
            &["", "/", "a/", "/a", "a/b/c", "-a", "a b", "UPPER.com/x", &long],
        );
        check(label_value, &["", "a", "A_b.c"], &["-", "a/b", "é", &long]);
        check(config_key, &["a", ".a", "A_b-c.d", "a..b"], &["", ".", "..", "..a", "a/b", "a b"]);
        check(env_name, &["A", "1a", "my.name", "a b", "-"], &["", "a=b", "é", "a\n"]);
        check(port_name, &["http", "a1", "p-1"], &["", "80", "a--b", "-a", "a-", "A", "abcdefghijklmnop"]);
        check(
            cidr,
            &["10.0.0.0/8", "::/0", "10.1.2.3/8"],
            &["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/+8", "10.0.0.0/"],
        );
        check(ip, &["1.2.3.4", "::1"], &["", "1.2.3", "01.2.3.4", "1.2.3.4/8"]);
        assert!(is_sysctl("net.ipv4.ip_forward") && is_sysctl("kernel/shm_rmid_forced"));
        assert!(!is_sysctl("net..x") && !is_sysctl("") && !is_sysctl("Net.x"));
    }

    #[test]
    fn sentences_are_upstreams_to_the_letter() {
        assert_eq!(
            dns_label("My_Name"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
              end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            dns_subdomain("My_Name"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert_eq!(mask_trailing_dash("web-"), "wea");
        assert_eq!(mask_trailing_dash("é-"), "a");
        assert_eq!(mask_trailing_dash("-"), "-");
    }
}
